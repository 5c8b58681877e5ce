"""What a client of a dispatcher does: it asks, and takes what it is given."""

from weakref import WeakKeyDictionary

from pipeline.chat.budget import Usage
from pipeline.chat.dispatch import Ask, Dispatcher, Permit
from pipeline.config import Price

PRICE = Price(prompt=1.0, completion=10.0)
"""A request of 100 and 1,000 tokens costs 1.01 cents."""
MOST = Usage(100, 1000)
TAKEN: WeakKeyDictionary[Dispatcher, dict[str, list[int]]] = WeakKeyDictionary()


async def collected(dispatcher: Dispatcher, client: str) -> list[Permit]:
    """What a client is given, which has what it was given before."""
    taken = TAKEN.setdefault(dispatcher, {})
    found = (await dispatcher.collect(client, taken.get(client, [])))[1]
    taken[client] = [permit.number for permit in found]
    return found


async def permits(dispatcher: Dispatcher, client: str, count: int) -> list[Permit]:
    found: list[Permit] = []
    while len(found) < count:
        found += await collected(dispatcher, client)
    return found


def asks(*numbers: int, most: Usage = MOST) -> list[Ask]:
    return [Ask(number, f"r{number}", most) for number in numbers]
