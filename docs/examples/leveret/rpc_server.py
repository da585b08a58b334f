"""Answer requests for Fibonacci numbers."""

from common import arguments, run, until_stopped

from leveret.client import connect

options = arguments("Compute Fibonacci numbers for others.").parse_args()


def fibonacci(n: int) -> int:
    low, high = 0, 1
    for _ in range(n):
        low, high = high, low + high
    return low


async def main() -> None:
    async with connect(options.url) as connection, connection.channel() as channel:
        await channel.declare_queue("rpc", durable=False)

        async def serve() -> None:
            # With several servers, each takes one request at a time.
            async for request in channel.consume("rpc", prefetch=1):
                print(f"asked for {int(request.body)}", flush=True)
                # The request says where its answer goes, and the mark by which the client will
                # know it.
                await channel.reply(request, str(fibonacci(int(request.body))).encode())
                await request.ack()

        await until_stopped(serve)


run(main)
