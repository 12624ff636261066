"""`python -m loadlab.generator.epoll PLAN`: carry out one plan (JSON, or - for standard
input) and print the outcome as JSON."""

import argparse
import gc
import sys

import msgspec

from loadlab.generator.epoll import saturated, sparse
from loadlab.generator.epoll.plan import Outcome, Plan, PlanError, check
from loadlab.record.cgroup import Unavailable


def carry_out(plan: Plan) -> Outcome:
    """Check the plan and carry it out; raises `PlanError` before any connection is opened."""
    check(plan)
    gc.collect()
    gc.disable()  # a collection over 10,000 users would show as latency of the server
    return saturated.run(plan) if plan.regime == "saturated" else sparse.run(plan)


def main() -> None:
    """Run the command line; exits 2 on a plan that cannot be carried out."""
    parser = argparse.ArgumentParser(prog="python -m loadlab.generator.epoll", description=__doc__)
    parser.add_argument(
        "plan", help='for instance {"regime":"saturated","port":8000,"body":"{…}","prefix":"{"}'
    )
    text = parser.parse_args().plan
    try:
        plan = msgspec.json.decode(sys.stdin.read() if text == "-" else text, type=Plan)
        outcome = carry_out(plan)
    except (PlanError, Unavailable, msgspec.DecodeError) as error:
        # A command line speaks to its terminal
        print(f"loadlab.generator.epoll: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    print(msgspec.json.encode(outcome).decode())  # noqa: T201


if __name__ == "__main__":
    main()
