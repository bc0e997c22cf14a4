"""Sends to channels and groups of a Channelkit site on Redis: docs/redis-wire.md.

    python3 send.py redis://localhost channel jobs '{"number": 1}'
    python3 send.py redis://localhost group chat '{"content": "hello"}'
"""
import json, pathlib, sys, uuid
import redis

SCRIPTS = pathlib.Path(__file__).resolve().parents[2] / "docs" / "redis"


class Site:
    def __init__(self, url, prefix="channelkit:"):
        self.redis, self.prefix = redis.Redis.from_url(url), prefix
        self.sender, self.number = uuid.uuid4().hex, 0
        self.scripts = {file.stem: self.redis.register_script(file.read_text()) for file in SCRIPTS.glob("*.lua")}

    def call(self, name, tag, *args):
        return self.scripts[name](keys=[f"{self.prefix}{{{tag}}}"], args=["", *args])

    def order(self, **parts):
        self.number += 1
        return json.dumps({"s": self.sender, "n": self.number, "p": 0, "u": "PUBLISH", "x": 60_000, **parts})

    def send(self, channel, content):
        line = content.get("reply_channel", "")
        body = f"0:{len(line) or ''}:{line}1{json.dumps(content)}"
        refused = self.call("send", "work", self.order(c=[channel], k=[1000], l=100), body)[2]
        if refused:
            raise RuntimeError(f"channel {channel} is full")

    def send_to_group(self, group, content):
        body = f"{len(group.encode())}:{group}1{json.dumps(content)}"
        for receiver in map(bytes.decode, self.call("receivers", f"g:{group}")):
            if receiver.endswith("!"):
                self.call("push", receiver, self.order(t="g", g=60_000, k=10_000), body)
            else:
                self.send(receiver, content)


if __name__ == "__main__":
    url, kind, name, content = sys.argv[1:]
    site = Site(url)
    (site.send if kind == "channel" else site.send_to_group)(name, json.loads(content))
