"""Ask the server for a Fibonacci number and wait for its answer."""

import sys

import trio
from common import arguments, run

from leveret.client import Unroutable, connect

parser = arguments("Ask for a Fibonacci number.")
parser.add_argument("n", nargs="?", type=int, default=30)
parser.add_argument("--timeout", type=float, default=10, help="seconds (default: %(default)s)")
options = parser.parse_args()


async def main() -> None:
    async with connect(options.url) as connection, connection.channel() as channel:
        print(f"asked for {options.n}", flush=True)
        try:
            with trio.fail_after(options.timeout):
                # Where the answer goes, and its mark, are the client's affair.
                answer = await channel.call(str(options.n).encode(), "rpc")
        except (trio.TooSlowError, Unroutable):
            sys.exit("no answer in time: is rpc_server.py running?")
        print(f"answer {answer.body.decode()}")


run(main)
