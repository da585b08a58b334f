"""Put one message into the queue `hello`."""

from common import arguments, connect

parser = arguments("Send one message.")
parser.add_argument("text", nargs="?", default="Hello, hare!")
options = parser.parse_args()

with connect(options.url) as connection:
    channel = connection.channel()
    # Whoever comes first creates the queue; for the second, the same declare changes nothing.
    channel.queue_declare(queue="hello")
    # The exchange without a name hands a message to the queue that the routing key names.
    channel.basic_publish(exchange="", routing_key="hello", body=options.text.encode())
    print(f"sent {options.text}")
