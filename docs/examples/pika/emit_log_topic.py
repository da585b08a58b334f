"""Send a log line under a key of words with dots between them, say `kernel.warning`."""

from common import arguments, connect

parser = arguments("Send a log line under a key.")
parser.add_argument("key", nargs="?", default="field.info")
parser.add_argument("text", nargs="*", default=["a", "hare", "ran", "by"])
options = parser.parse_args()
line = " ".join(options.text)

with connect(options.url) as connection:
    channel = connection.channel()
    channel.exchange_declare(exchange="logs.topic", exchange_type="topic")
    channel.basic_publish(exchange="logs.topic", routing_key=options.key, body=line.encode())
    print(f"sent {options.key}: {line}")
