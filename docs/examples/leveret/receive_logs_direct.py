"""Print the log lines of the severities that the command line names."""

from common import arguments, run, until_stopped

from leveret.client import connect

parser = arguments("Print the log lines of some severities.")
parser.add_argument("severities", nargs="+", metavar="SEVERITY")
options = parser.parse_args()


async def main() -> None:
    async with connect(options.url) as connection, connection.channel() as channel:
        await channel.declare_exchange("logs.direct", "direct", durable=False)
        queue = await channel.declare_queue(exclusive=True)
        # One binding for each severity; a queue may have as many as it likes.
        for severity in options.severities:
            await channel.bind_queue(queue, "logs.direct", severity)

        async def show() -> None:
            async for message in channel.consume(queue, no_ack=True):
                print(f"log {message.routing_key}: {message.body.decode()}", flush=True)

        await until_stopped(show)


run(main)
