import pytest
import torch
from torch import Tensor, nn

from parsecrl.algorithms.models.deduplication import DeduplicatingLayers, distinct_rows, distinct_rows_of_pair


def repeated(count: int, size: int, of: int) -> Tensor:
    rng = torch.Generator().manual_seed(0)
    return torch.randn(of, size, generator=rng)[torch.randint(of, (count,), generator=rng)]


def test_distinct_rows_are_distinct_and_give_the_batch_back():
    batch = repeated(200, 3, of=7)
    found = distinct_rows(batch)
    assert len(found.rows) == 7
    assert torch.equal(found.rows[found.inverse], batch)
    assert torch.equal(batch[found.first], found.rows)
    swapped = torch.tensor([[1.0, 2.0], [2.0, 1.0], [float("nan"), 0.0], [1.0, 2.0]])
    back = distinct_rows(swapped)
    assert torch.equal(back.rows[back.inverse].nan_to_num(7.0), swapped.nan_to_num(7.0))


@pytest.mark.parametrize("of", [3, 7, 1000])
@pytest.mark.parametrize("others", [0, 4])
def test_the_rows_of_two_batches_are_distinct_and_those_of_the_first_come_first(of: int, others: int):
    batch = repeated(50, 3, of)
    first, second = batch[:30], torch.cat([batch[:20] if of == 1000 else batch[30:], torch.ones(others, 3)])
    found = distinct_rows_of_pair(first, second)
    U = len(distinct_rows(first).rows)
    assert torch.equal(found.rows[found.of_first], first)
    assert torch.equal(found.rows[found.reached][found.of_second], second)
    assert (
        len(found.rows) == len(torch.unique(found.rows, dim=0)) == len(distinct_rows(torch.cat([first, second])).rows)
    )
    assert found.num_first == U
    assert set(found.of_first.tolist()) == set(range(U))
    assert len(found.reached) == len(distinct_rows(second).rows)
    assert len(found.rows) - U == (others > 0)  # of the second batch alone


def test_of_two_batches_without_repetition_all_rows_stay_where_they_are():
    first, second = torch.randn(5, 3), torch.randn(4, 3)
    found = distinct_rows_of_pair(first, second)
    assert torch.equal(found.rows, torch.cat([first, second]))
    assert found.num_first == 5
    assert found.reached.tolist() == [5, 6, 7, 8]
    assert found.of_second.tolist() == [0, 1, 2, 3]


def test_layers_that_compute_equal_rows_once_give_the_same_numbers_and_gradients():
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    once = DeduplicatingLayers(*plain)
    assert once.state_dict().keys() == plain.state_dict().keys()
    x, seen = repeated(60, 3, of=5).reshape(20, 3, 3), []
    once[0].register_forward_hook(lambda layer, inputs, output: seen.append(len(output)))
    weights = torch.randn(20, 3, 2)
    gradients = []
    for network in (plain, once):
        y = network(x)
        gradients.append([y, *torch.autograd.grad((weights * y).sum(), list(plain.parameters()))])
    assert seen[-1] == 5
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_an_input_that_is_differentiated_has_the_gradients_of_its_own_rows():
    torch.manual_seed(0)
    network = DeduplicatingLayers(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1))
    x = repeated(6, 3, of=2).requires_grad_()
    weights = torch.arange(6.0)
    (found,) = torch.autograd.grad((weights * network(x)[:, 0]).sum(), x)
    (unit,) = torch.autograd.grad(network(x).sum(), x)
    torch.testing.assert_close(found, weights[:, None] * unit)


def test_on_another_device_every_row_is_computed():
    batch = repeated(20, 3, of=2).to("meta")
    assert distinct_rows(batch).rows.shape == (20, 3)
