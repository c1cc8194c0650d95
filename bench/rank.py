"""Ratings of 1.67 million battles: fit, errors and bootstrap, beside evalica and a SciPy fit in the same run.

The battles are made: 130 models of known strength, of which some play a hundred times as often as others. The SciPy
peer minimises the same objective with L-BFGS over the counted battles and its analytic gradient, and draws its
bootstrap from the same counts. evalica, scipy come with the `dev` extra.

    python bench/rank.py [--battles 1672412] [--models 130] [--rounds 3]
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from chaku.rank.bootstrap import bootstrap
from chaku.rank.fit import SCALE, fit
from chaku.rank.games import Games, won_matrix

NUM_REFITS = 100


def battles(num: int, num_models: int) -> Games:
    """Battles with uneven play and a quarter of ties."""
    random = np.random.default_rng(0)
    strengths = random.normal(0, 0.8, num_models)
    popularity = random.pareto(0.8, num_models) + 0.05
    first = random.choice(num_models, num, p=popularity / popularity.sum())
    second = (first + random.choice(np.arange(1, num_models), num)) % num_models
    chance = 1 / (1 + np.exp(strengths[second] - strengths[first]))
    score = (random.random(num) < chance).astype(float)
    score[random.random(num) < 0.25] = 0.5
    return Games(tuple(f"model-{index}" for index in range(num_models)), first, second, score)


def fresh(games: Games) -> Games:
    """The same arrays, with nothing computed yet."""
    return Games(games.names, games.first, games.second, games.score)


def scipy_fit(won: Any, start: Any) -> Any:
    """Natural-log strengths by L-BFGS."""
    from scipy.optimize import minimize

    played = won + won.T

    def loss(theta: Any) -> tuple[float, Any]:
        gap = theta[:, None] - theta[None, :]
        chance = 1 / (1 + np.exp(-gap))
        return float((won * np.logaddexp(0, -gap)).sum()), (played * chance).sum(axis=1) - won.sum(axis=1)

    result = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 10_000, "gtol": 1e-6, "ftol": 0})
    return result.x - result.x.mean()


def scipy_refits(games: Games) -> None:
    """A hundred fits of multinomial draws."""
    cells = games.cells
    random = np.random.default_rng(0)
    start = np.zeros(len(games.names))
    for counts in random.multinomial(len(games), cells.count / cells.count.sum(), NUM_REFITS):
        scipy_fit(won_matrix(cells, len(games.names), counts.astype(float)), start)


def evalica_fit(games: Games) -> Any:
    """evalica's Bradley-Terry on names, as its users call it."""
    import evalica

    winners = np.array([evalica.Winner.Y, evalica.Winner.Draw, evalica.Winner.X])[(games.score * 2).astype(int)]
    names = np.array(games.names)
    return evalica.bradley_terry(names[games.first].tolist(), names[games.second].tolist(), winners.tolist())


def timed(rounds: int, work: Callable[[], object]) -> str:
    """Median seconds, with the range."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return f"{statistics.median(times):8.2f} s  ({min(times):.2f} to {max(times):.2f})"


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--battles", type=int, default=1_672_412)
    parser.add_argument("--models", type=int, default=130)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    games = battles(args.battles, args.models)
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, numpy {np.__version__}")
    least, most = games.num_games.min(), games.num_games.max()
    print(f"{args.battles:,} battles of {args.models} models, {least:,} to {most:,} each")
    start = np.zeros(args.models)
    rows: list[tuple[str, int, Callable[[], object]]] = [
        ("chaku: fit and sandwich errors", args.rounds, lambda: fit(fresh(games))),
        (f"chaku: {NUM_REFITS} bootstrap rounds", args.rounds, lambda: bootstrap(fresh(games), NUM_REFITS)),
        ("scipy L-BFGS: fit", args.rounds, lambda: scipy_fit(won_matrix(fresh(games).cells, args.models), start)),
        (f"scipy L-BFGS: {NUM_REFITS} refits", 1, lambda: scipy_refits(fresh(games))),
        ("evalica: fit", 1, lambda: evalica_fit(games)),
    ]
    for name, rounds, work in rows:
        print(f"{name:32}{timed(rounds, work)}", flush=True)
    ours, theirs = fit(games).strengths, scipy_fit(won_matrix(games.cells, args.models), start)
    print(f"largest difference to scipy's ratings: {SCALE * np.abs(ours - theirs).max():.2g} points")


if __name__ == "__main__":
    main()
