"""Print the log lines whose key fits one of the patterns that the command line names."""

from common import arguments, run, until_stopped

from leveret.client import connect

parser = arguments("Print the log lines whose key fits a pattern.")
parser.add_argument(
    "patterns",
    nargs="+",
    metavar="PATTERN",
    help="words with dots between; * stands for one word, # for any number, none too",
)
options = parser.parse_args()


async def main() -> None:
    async with connect(options.url) as connection, connection.channel() as channel:
        await channel.declare_exchange("logs.topic", "topic", durable=False)
        queue = await channel.declare_queue(exclusive=True)
        for pattern in options.patterns:
            # A line that fits several of our patterns still comes once.
            await channel.bind_queue(queue, "logs.topic", pattern)

        async def show() -> None:
            async for message in channel.consume(queue, no_ack=True):
                print(f"log {message.routing_key}: {message.body.decode()}", flush=True)

        await until_stopped(show)


run(main)
