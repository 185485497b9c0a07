import pytest
import torch

from parsecrl.algorithms.models import ActionDecoder, Belief


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def beliefs(B: int, D: int = 5, S: int = 3) -> Belief:
    return Belief(torch.randn(B, D, generator=seeded(1)), torch.randn(B, S, generator=seeded(2)))


def decoder(**options) -> ActionDecoder:
    torch.manual_seed(0)
    return ActionDecoder(4, 6, 2, hidden_size=32, belief_size=8, **options)


@pytest.mark.parametrize("init_scale", [0.1, 1.0, 100.0])
def test_actions_stay_within_their_bounds(init_scale):
    z = 2 * torch.rand(3, 50, 4, generator=seeded(0)) - 1
    u = decoder(init_scale=init_scale)(z)
    assert u.shape == (3, 50, 6, 2)
    assert u.abs().max() <= 1


def test_initial_scale_multiplies_the_weights_and_widens_the_actions():
    small, large = decoder(), decoder(init_scale=3.0)
    for (name, a), b in zip(small.named_parameters(), large.parameters(), strict=True):
        assert torch.allclose(3 * a, b), name
        assert not name.endswith("bias") or (a == 0).all()
    z = 2 * torch.rand(1, 500, 4, generator=seeded(0)) - 1
    assert large(z).std() > 1.5 * small(z).std()


def test_number_of_layers():
    for num_layers in (1, 2, 4):
        net = decoder(num_layers=num_layers)
        linear = [m for m in net.modules() if isinstance(m, torch.nn.Linear)]
        assert len(linear) == num_layers + 1
        assert net(torch.zeros(1, 1, 4)).shape == (1, 1, 6, 2)
    with pytest.raises(ValueError, match="num_layers"):
        decoder(num_layers=0)


def test_unconditioned_decoder_takes_and_ignores_a_belief():
    net, z = decoder(), torch.rand(3, 7, 4, generator=seeded(0))
    assert torch.equal(net(z), net(z, beliefs(3)))


def test_conditioned_decoder_sees_its_own_belief_only():
    net = decoder(conditioning="belief")
    z = torch.rand(3, 7, 4, generator=seeded(0))
    h, s = (x.requires_grad_() for x in beliefs(3))
    g_h, g_s = torch.autograd.grad(net(z, Belief(h, s))[1].sum(), (h, s))
    for g in (g_h, g_s):
        assert (g[1] != 0).all()
        assert (g[0] == 0).all()
        assert (g[2] == 0).all()


def test_conditioned_decoder_asks_for_a_belief():
    with pytest.raises(ValueError, match="pass belief"):
        decoder(conditioning="belief")(torch.zeros(1, 1, 4))


def test_sigmoid_output_is_stretched_to_the_same_bounds():
    z = 2 * torch.rand(2, 50, 4, generator=seeded(0)) - 1
    tanh, sigmoid = decoder(), decoder(output="sigmoid")
    assert sigmoid(z).abs().max() <= 1
    torch.testing.assert_close(sigmoid(z), (tanh(z).double().atanh() / 2).tanh().float(), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"tanh, sigmoid.*'relu'"):
        decoder(output="relu")


def test_unknown_conditioning_names_the_choices():
    with pytest.raises(ValueError, match=r"none, belief.*'state'"):
        decoder(conditioning="state")
