"""Print every message of the queue `hello`."""

from common import arguments, run, until_stopped

from leveret.client import connect

options = arguments("Print what is sent to the queue hello.").parse_args()


async def main() -> None:
    async with connect(options.url) as connection, connection.channel() as channel:
        await channel.declare_queue("hello", durable=False)

        async def show() -> None:
            # no_ack: the broker forgets a message once it is sent. Fine for a greeting, not for
            # work.
            async for message in channel.consume("hello", no_ack=True):
                print(f"received {message.body.decode()}", flush=True)

        await until_stopped(show)


run(main)
