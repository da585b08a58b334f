"""Send a log line under its severity."""

from common import arguments, connect

parser = arguments("Send a log line under its severity.")
parser.add_argument("severity", nargs="?", default="info")
parser.add_argument("text", nargs="*", default=["a", "hare", "ran", "by"])
options = parser.parse_args()
line = " ".join(options.text)

with connect(options.url) as connection:
    channel = connection.channel()
    # A direct exchange compares the routing key with the key of each binding.
    channel.exchange_declare(exchange="logs.direct", exchange_type="direct")
    channel.basic_publish(exchange="logs.direct", routing_key=options.severity, body=line.encode())
    print(f"sent {options.severity}: {line}")
