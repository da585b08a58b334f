"""Publish messages and know, for each, that the broker has it."""

import sys

from common import arguments, run

from leveret.client import PublishRefused, Unroutable, connect

parser = arguments("Publish messages and wait for the broker's confirms.")
parser.add_argument("count", nargs="?", type=int, default=100)
parser.add_argument("--queue", default="confirmed", help="its name (default: %(default)s)")
options = parser.parse_args()


async def main() -> None:
    async with connect(options.url) as connection, connection.channel() as channel:
        await channel.declare_queue("confirmed")
        try:
            # A hundred messages are under way before their confirms; the block's end waits for
            # all. Without `mandatory`, one that fits no queue would be dropped and confirmed.
            async with channel.publisher(options.queue, mandatory=True, window=100) as publisher:
                for number in range(options.count):
                    await publisher.send(f"message {number}".encode())
        except Unroutable as error:
            sys.exit(f"{error.body.decode()} was returned: there is no queue {options.queue}")
        except PublishRefused as error:
            sys.exit(str(error))
        print(f"confirmed {publisher.confirmed}")


run(main)
