"""Text that nobody wants, as crawls are full of it.

Every kind is made from words and turns of phrase of one half: what a classifier learns from half 0 shares no product,
no place and no sentence with what it is tried on from half 1, and garble is made of other documents.
"""

# ruff: noqa: ARG001 - all kinds are called alike
from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import pairwise

_PRODUCTS = (
    """replica watches|payday loans|weight loss pills|online casino bonus|cheap flights|car insurance quotes|mattress
    deals|essay writing service|crypto trading bot|hair transplant|vpn discount|ugg boots|roof repair|dental
    implants| forex signals|garcinia extract""",
    """designer handbags|debt consolidation|male enhancement|slot machines|hotel vouchers|home warranty|standing desk|
    homework help|bitcoin wallet|teeth whitening|web hosting coupon|nike outlet|gutter cleaning|keto
    gummies|binary options|phone psychic""",
)
_PLACES = (
    "Austin|Leeds|Toronto|Perth|Phoenix|Dublin|Tampa|Boise|Miami|Calgary|Reno|Cardiff",
    "Dallas|Bristol|Vancouver|Sydney|Denver|Cork|Orlando|Fresno|Boston|Ottawa|Omaha|Glasgow",
)
_PITCHES = (
    """Looking for the best {p} in {c}? You have come to the right place!|Our {p} are #1 rated by thousands of happy
    customers.|Buy {p} online today and save up to {n}%.|When it comes to {p}, nothing beats quality and
    price.|Many people in {c} ask us every day about {p}.|Order now, this offer for {p} ends in {n}
    hours!!!|Click here to get your free {p} guide.|We ship {p} to {c} and nearby with no hidden fees.|Read our
    honest {p} review before you decide.""",
    """Are you tired of overpriced {p}? We have the answer for {c} residents.|Top {n} reasons why {p} will change your
    life.|Get instant access to {p} with our limited deal.|Trusted {p} experts, available 24/7 in {c}.|Compare
    {p} and pay {n} dollars less, guaranteed.|Don't miss out - claim your {p} before midnight!|See why {c} loves
    our {p}.|Sign up below and we will send {p} tips to your inbox.|The secret about {p} that doctors do not
    want you to know.""",
)
_SPINS = (
    "great|amazing|superb;buy|purchase|order;cheap|affordable|low cost;people|folks|customers;help|assist|support",
    "best|finest|top;get|obtain|grab;fast|quick|speedy;home|house|residence;money|cash|funds",
)
_MENUS = (
    """Home|About Us|Contact|Privacy Policy|Terms of Service|Log in|Register|My Account|Cart
    (0)|Search|Newsletter|Share on Facebook|Tweet|Pin it|Read more|Leave a comment|Older posts|Skip to
    content|Accept all cookies|All rights reserved""",
    """Start|Who we are|Get in touch|Cookie settings|Legal notice|Sign in|Create account|Wish list|Basket: 0 items|Site
    map|Subscribe|Like us|Email this|Continue reading|No comments yet|Next page|Main menu|I agree|Copyright
    reserved|Back to top""",
)
_MONTHS = ("January", "March", "May", "July", "October")
_TAGS = (
    "travel|recipes|gadgets|fitness|fashion|celebrity|finance|gaming|pets|garden|autos|beauty",
    "lifestyle|food|tech|wellness|style|gossip|invest|esports|dogs|diy|cars|skincare",
)


def _words(pools: Sequence[str], half: int) -> list[str]:
    return [" ".join(item.split()) for item in pools[half].split("|")]


def stuffed(rng: random.Random, half: int, real: Sequence[str]) -> str:
    """A page for a search engine: one product, said over and over, with places."""
    product, places = rng.choice(_words(_PRODUCTS, half)), _words(_PLACES, half)
    out = [f"{product.title()} {rng.choice(places)} | Best {product.title()} {rng.randint(2009, 2024)}", ""]
    for _ in range(rng.randint(4, 14)):
        sentences = (_pitch(rng, half, product) for _ in range(rng.randint(2, 6)))
        keywords = ", ".join(f"{product} {rng.choice(places)}" for _ in range(rng.randint(0, 5)))
        out.append(f"{' '.join(sentences)} {keywords}".strip())
    return "\n".join(out)


def _pitch(rng: random.Random, half: int, product: str) -> str:
    pitch = rng.choice(_words(_PITCHES, half))
    return pitch.format(p=product, c=rng.choice(_words(_PLACES, half)), n=rng.randint(5, 90))


def boilerplate(rng: random.Random, half: int, real: Sequence[str]) -> str:
    """What is left of a page whose text was not found: menus, tags, teasers cut off in the middle, dates."""
    menus, tags = _words(_MENUS, half), _words(_TAGS, half)
    out = []
    for _ in range(rng.randint(8, 40)):
        date = f"{rng.choice(_MONTHS)} {rng.randint(1, 28)}, {rng.randint(2008, 2024)}"
        teaser = rng.choice(rng.choice(real).split("\n")).strip()[: rng.randint(20, 60)]
        out.append(
            rng.choice(
                (
                    rng.choice(menus),
                    " | ".join(rng.sample(menus, rng.randint(2, 7))),
                    f"{date} by admin in {rng.choice(tags).title()} - {rng.randint(0, 99)} Comments",
                    f"{teaser}... [{rng.choice(menus)}]",
                    " ".join(f"{tag} ({rng.randint(1, 300)})" for tag in rng.sample(tags, rng.randint(3, 8))),
                )
            )
        )
    return "\n".join(out)


def links(rng: random.Random, half: int, real: Sequence[str]) -> str:
    """A farm of links."""
    out = []
    for _ in range(rng.randint(10, 60)):
        product, place = rng.choice(_words(_PRODUCTS, half)), rng.choice(_words(_PLACES, half)).lower()
        name = product.replace(" ", rng.choice(("-", "", "_")))
        host = f"{rng.choice(('www.', '', 'best-', 'my'))}{name}.{rng.choice(('biz', 'info', 'xyz', 'top'))}"
        out.append(f"http://{host}/{place}/{rng.randint(1, 99999)}.html {product} {place}")
    return rng.choice(("\n", " ")).join(out)


def spun(rng: random.Random, half: int, real: Sequence[str]) -> str:
    """Paragraphs of real text whose words were exchanged by a machine, with an advertisement in every one."""
    groups = [group.split("|") for group in _SPINS[half].split(";")]
    product = rng.choice(_words(_PRODUCTS, half))
    out = []
    for _ in range(rng.randint(2, 6)):
        words = re.findall(r"\S+\s*", _excerpt(rng, real, 80))
        for at in range(0, len(words), rng.randint(3, 7)):
            words[at] = f"{rng.choice(rng.choice(groups))} "
        words.insert(rng.randrange(len(words) + 1), f"{_pitch(rng, half, product)} ")
        out.append("".join(words))
    return "\n\n".join(out)


def garble(rng: random.Random, half: int, real: Sequence[str]) -> str:
    """A Markov chain over the words of a few real documents: every pair of words and every
    end of a line is real, the sense is gone."""
    follow: dict[str, list[str]] = defaultdict(list)
    for text in rng.sample(list(real), min(12, len(real))):
        words = re.findall(r"\S+\s*", text[:20_000])
        for first, second in pairwise(words):
            follow[first].append(second)
    word = rng.choice(sorted(follow))
    out = [word]
    for _ in range(rng.randint(150, 900)):
        word = rng.choice(follow[word]) if follow[word] else rng.choice(sorted(follow))
        out.append(word)
    return "".join(out)


def salad(rng: random.Random, half: int, real: Sequence[str]) -> str:
    """Words of a real document in any order."""
    words = re.findall(r"\S+\s*", _excerpt(rng, real, 600))
    rng.shuffle(words)
    return "".join(words)


def damaged(rng: random.Random, half: int, real: Sequence[str]) -> str:
    """Text out of a broken scan or decoder: letters exchanged, split and doubled."""
    noise = ("", "  ", "~", "|", "1l", "rn", "\ufffd", "Ã©", "â€™", ". ", "_")[half::2]
    rate = rng.uniform(0.06, 0.2)
    text = _excerpt(rng, real, 400)
    return "".join(rng.choice(noise) if rng.random() < rate else letter for letter in text)


def _excerpt(rng: random.Random, real: Sequence[str], num_words: int) -> str:
    words = re.findall(r"\S+\s*", rng.choice(real))
    begin = rng.randrange(max(1, len(words) - num_words))
    return "".join(words[begin : begin + num_words])


SPAM: dict[str, Callable[[random.Random, int, Sequence[str]], str]] = {
    make.__name__: make for make in (stuffed, boilerplate, links, spun, garble, salad, damaged)
}


def spam(count: int, half: int, real: Sequence[str], seed: int = 0) -> list[tuple[str, str]]:
    """(kind, text), the kinds in turn. `real` is what the kinds that quote take from."""
    rng = random.Random(f"{seed}-{half}")
    makers = list(SPAM.items())
    return [(name, make(rng, half, real)) for name, make in (makers[n % len(makers)] for n in range(count))]
