"""Planning costs by hand; a controller minimises one in what the world model predicts."""

from torch import Tensor


def upright(observations: Tensor, rewards: Tensor, actions: Tensor) -> Tensor:
    """Keep Pendulum-v1 upright and slow, whatever its reward says.

    Args:
        observations: [B, N, H, 3]: cosine and sine of the angle, 0 upright; velocity in rad/s.
        rewards: [B, N, H], not used.
        actions: [B, N, H, 1] in [-1, 1].

    Returns:
        Costs [B, N].
    """
    cosine, velocity = observations[..., 0], observations[..., 2]
    return (1 - cosine + 0.01 * velocity**2 + 0.01 * actions[..., 0] ** 2).sum(-1)
