"""Print every log line that is sent while this program runs."""

from common import arguments, run, until_stopped

from leveret.client import connect

options = arguments("Print all log lines.").parse_args()


async def main() -> None:
    async with connect(options.url) as connection, connection.channel() as channel:
        await channel.declare_exchange("logs", "fanout", durable=False)
        # No name: the broker makes one up. Exclusive: the queue is ours and ends with our
        # connection; should that be lost, the client makes a new one and binds it as this one.
        queue = await channel.declare_queue(exclusive=True)
        await channel.bind_queue(queue, "logs")

        async def show() -> None:
            async for message in channel.consume(queue, no_ack=True):
                print(f"log {message.body.decode()}", flush=True)

        await until_stopped(show)


run(main)
