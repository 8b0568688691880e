"""`python -m tests.sim --first 0 --seeds 300`: plays many seeds, or tells the whole story of one."""

from __future__ import annotations

import argparse
import sys
import time
from multiprocessing import Pool

from tests.sim.play import play, scenario, story, verdict
from tests.sim.world import World


def main() -> int:
    options = _options()
    if options.seeds == 1:
        return tell(options.first)
    return play_many(range(options.first, options.first + options.seeds), options.processes)


def tell(seed: int) -> int:
    """The whole story, whether or not it ends well."""
    world = World(seed)
    broken = play(world)
    print(scenario(world), story(world), broken or f"seed {seed}: all promises were kept", sep="\n")
    return 1 if broken else 0


def play_many(seeds: range, processes: int) -> int:
    began_s, failures = time.monotonic(), 0
    with Pool(processes) as pool:
        for broken in pool.imap(verdict, seeds, chunksize=10):
            if broken:
                failures += 1
                print(broken, end="\n\n", flush=True)
    took_s = time.monotonic() - began_s
    print(f"{failures} of {len(seeds)} seeds broke a promise; {took_s:.0f} s")
    return 1 if failures else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.sim")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=300)
    parser.add_argument("--processes", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
