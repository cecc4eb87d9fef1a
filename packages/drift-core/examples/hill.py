"""A generator on a manifold that is known by its metric in a chart alone; hill.png shows data and samples."""

import sys

import matplotlib.pyplot as plt
import torch
from drift_core import Laplace, Manifold, Pairs, drift, drift_loss
from drift_core.testing import check_manifold
from drift_core.training import plain_mlp
from torchdiffeq import odeint


def metric(x):
    """The metric [..., 2, 2] at points x [..., 2], here that of z = 0.5 exp(-|x|^2); put yours here."""
    slope = -x * torch.exp(-x.square().sum(-1, keepdim=True))
    return torch.eye(2).to(x) + slope[..., :, None] * slope[..., None, :]


class Chart(Manifold):  # points are coordinates [..., 2]
    injectivity_radius, point_ndim = 2.0, 1
    projx, proju = staticmethod(lambda x: x), staticmethod(lambda x, u: u)
    inner = staticmethod(lambda x, u, v: ((metric(x) @ u[..., None]).squeeze(-1) * v).sum(-1))
    dist = lambda self, x, y: self.norm(x, self.logmap(x, y))  # noqa: E731

    def expmap(self, x, u):  # by Hamilton's equations for the momentum g u
        def velocity(_, state):
            v = torch.linalg.solve(metric(state[0]), state[1])
            return v, torch.func.grad(lambda q: self.inner(q, v, v).sum() / 2)(state[0])

        x, u = torch.broadcast_tensors(x, u)
        state, times = (x, (metric(x) @ u[..., None]).squeeze(-1)), torch.tensor([0.0, 1.0]).to(x)
        return odeint(velocity, state, times, method="rk4", options={"step_size": 1 / 5})[0][-1]

    def logmap(self, x, y):  # by Newton's method for the velocity whose geodesic ends at y
        u, nudges = y - x, 1e-3 * torch.eye(2).to(x).reshape(2, *[1] * (max(x.ndim, y.ndim) - 1), 2)
        for _ in range(3):
            ends = self.expmap(x, torch.cat([u[None], u + nudges]))
            u = u + torch.linalg.solve((ends[1:] - ends[0]).movedim(0, -1) / 1e-3, y - ends[0])
        return u

    def pairs(self, x, y):  # logarithms of all pairs at once, which small batches afford
        r = self.norm(x[:, None], u := self.logmap(x[:, None], y))
        return Pairs(r, lambda weight: torch.einsum("nm,nmd->nd", weight / r.clamp_min(1e-9), u))


if __name__ == "__main__":
    hill, steps, seed = Chart(), int(sys.argv[1]) if sys.argv[1:] else 200, torch.manual_seed(0)
    check_manifold(hill, *0.5 * torch.randn(2, 5, 2).double(), tol=1e-4)
    data = torch.polar(0.9 + 0.05 * torch.randn(2000), 4.7 * torch.rand(2000))
    data, net = torch.view_as_real(data), plain_mlp(2, 64, 2, 2)
    adam = torch.optim.Adam(net.parameters())
    for step in range(steps):
        scale, x = 0.1 ** (step / steps), net(torch.randn(32, 2))
        v = drift(hill, Laplace(scale), x.detach(), data[torch.randint(2000, (32,))])
        adam.param_groups[0]["lr"] = 0.01 * (1 - step / steps)
        adam.zero_grad()
        drift_loss(hill, x, v, step_size=0.3 * scale).backward()
        adam.step()
    plt.plot(*data[:500].T, ".", *net(torch.randn(500, 2)).detach().T, ".", markersize=3)
    plt.savefig("hill.png")
