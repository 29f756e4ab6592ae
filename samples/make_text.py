"""Write the sample set: short messages to a company's support inbox, in eight intents, by forty authors.

    python samples/make_text.py [--seed 0] [--out data/text/messages.csv]

Needs only the standard library; one seed always gives the same bytes. samples/README.md tells how the set is built.
"""

from __future__ import annotations

import argparse
import csv
import io
import random
import re
from dataclasses import dataclass, replace
from pathlib import Path

SEEDS = Path(__file__).with_name("text_seeds.txt")
COLUMNS = ("text", "label", "split", "author")
TEST_SEEDS = 16  # seeds of each intent whose messages are test rows; their wording never occurs in training
TEST_SECOND = 3  # the same for second sentences
TEST_AUTHORS = 14
RESENT = 12  # messages that their author sends again with a small change; nothing in the table marks them

AUTHORS = (
    "a.novak", "amina.d", "b.hughes", "bea_k", "c.moreau", "carlos.r", "chen.wei", "d.okafor", "dunja",
    "e.larsen", "elif.y", "f.rossi", "farah", "grzegorz.p", "h.tanaka", "hanne.v", "i.petrov", "ines.m",
    "j.brandt", "j.oneill", "joao.s", "k.singh", "kavya", "l.weber", "liam.t", "luca.b", "m.dubois", "marta.z",
    "mei.lin", "n.ahmed", "nora.j", "o.fischer", "p.costa", "priya.n", "r.jansen", "s.kowal", "sofia.g",
    "t.mbeki", "ulla.h", "y.haddad",
)  # fmt: skip
SLOTS = {
    "product": "headset|desk lamp|label printer|card reader|router|docking station|webcam|office chair|kettle|keyboard",
    "plan": "Plus|Team|Pro|Family|Studio",
    "amount": "$19|$49.90|24,90 €|129 euros|£12|89 dollars|15 CHF|$240",
    "when": "yesterday|on Monday|last week|this morning|on the 3rd|on Friday|two days ago",
    "order": "#48213|#50177|#9931|A-20714|#61002|B-3380|#77450",
    "month": "March|June|October|January|April|November",
    "city": "Lyon|Graz|Leeds|Porto|Gdansk|Utrecht|Bergen",
    "app": "app|website|desktop app|portal|mobile app",
    "name": "Karen|Tomas|Mr Bell|Aisha|your colleague|Ms Ortega",
    "n": "3|4|5|6|8|9|12",
}
GREETINGS = (
    "Hi,",
    "Hello,",
    "Hi team,",
    "Dear support,",
    "hey",
    "Good morning,",
    "Bonjour,",
    "Hola,",
    "Guten Tag,",
    "Hej,",
)
CLOSINGS = ("Thanks", "thx", "Regards", "Kind regards", "Merci", "Danke", "Gracias", "cheers", "Best", "BR")
EMOJI = ("🙂", "🙏", "😅", "🤔", "👀", "☕", "📎", "👋")
SHORT = {"please": "pls", "you": "u", "your": "ur", "because": "bc", "and": "&", "with": "w/", "for": "4", "are": "r",
         "thanks": "thx", "message": "msg", "something": "smth", "tomorrow": "tmrw", "cannot": "cant"}  # fmt: skip
# True of a message of any intent, and made of the other intents' words.
ASIDES = (
    "I'm on the {plan} plan.", "Order {order}, paid in {month}.", "I already asked {name} about it.",
    "My account is under my work email.", "Sent from the {app}.", "It's about the {product}, by the way.",
    "The invoice is attached.", "A colleague had the same question {when}.", "I couldn't find it in your help pages.",
    "We are in {city}.", "No need to call me back.", "I waited in the chat before.", "See the picture.",
    "We ordered it in {month}.", "Love the {product} otherwise.",
)  # fmt: skip


@dataclass(frozen=True)
class Author:
    """Somebody with habits: how they write, whatever they write about. Chances lie between 0 and 1."""

    name: str
    casing: str
    typos: float  # chance that a word is misspelt
    greeting: str
    greets: float
    closing: str
    closes: float
    shortens: float
    emoji: str
    decorates: float
    talks: float  # chance of a second sentence on the same matter
    asides: float  # chance of a sentence on nothing in particular
    ending: str  # what becomes of the last full stop


@dataclass(frozen=True)
class Row:
    """One row of the table."""

    text: str
    label: str
    split: str
    author: str


def read_seeds(path: Path = SEEDS) -> dict[str, tuple[list[str], list[str]]]:
    """Intent -> its seeds and its second sentences, in file order."""
    seeds: dict[str, tuple[list[str], list[str]]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            first, second = seeds.setdefault(line.removeprefix("## "), ([], []))
        elif line.startswith("+ "):
            second.append(line.removeprefix("+ "))
        elif line and not line.startswith("#"):
            first.append(line)
    return seeds


def make_authors(rng: random.Random) -> list[Author]:
    """The forty authors with habits of their own."""
    return [
        Author(
            name=name,
            casing=rng.choice(("as it is", "as it is", "as it is", "lower", "lower", "shouting")),
            typos=rng.choice((0.0, 0.0, 0.01, 0.02, 0.05)),
            greeting=rng.choice(GREETINGS),
            greets=rng.choice((0.0, 0.2, 0.7)),
            closing=rng.choice(CLOSINGS),
            closes=rng.choice((0.0, 0.2, 0.6)),
            shortens=rng.choice((0.0, 0.0, 0.1, 0.4)),
            emoji=rng.choice(EMOJI),
            decorates=rng.choice((0.0, 0.0, 0.1, 0.4)),
            talks=rng.choice((0.1, 0.4, 0.7)),
            asides=rng.choice((0.0, 0.1, 0.2)),
            ending=rng.choice((".", "", "...", "!", " !!")),
        )
        for name in AUTHORS
    ]


def fill(text: str, rng: random.Random) -> str:
    """The text with its slots filled."""
    return re.sub(r"\{(\w+)\}", lambda slot: rng.choice(SLOTS[slot[1]].split("|")), text)


def misspell(word: str, rng: random.Random) -> str:
    """The word with two letters swapped, one lost or one doubled; short words and numbers stay."""
    if len(word) < 4 or not word.isalpha():
        return word
    at = rng.randrange(1, len(word) - 1)
    kind = rng.randrange(3)
    if kind == 0:
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    return word[:at] + word[at + 1 :] if kind == 1 else word[:at] + word[at] + word[at:]


def write(seed: str, second: list[str], author: Author, rng: random.Random) -> str:
    """A message that says the seed, and perhaps a second sentence, as its author would write it."""
    text = fill(seed, rng)
    if text[-1].isalnum():
        text += author.ending
    elif text.endswith("."):
        text = text[:-1] + author.ending
    if rng.random() < author.talks:
        text = f"{text} {rng.choice(second)}"
    if rng.random() < author.asides:
        aside = fill(rng.choice(ASIDES), rng)
        text = f"{text} {aside}" if rng.random() < 0.6 else f"{aside} {text}"
    words = []
    for word in text.split(" "):
        if rng.random() < author.shortens:
            word = SHORT.get(word.lower(), word)
        words.append(misspell(word, rng) if rng.random() < author.typos else word)
    text = " ".join(words)
    if rng.random() < author.greets:
        text = f"{author.greeting} {text}"
    if rng.random() < author.closes:
        text = f"{text} {author.closing}"
    if rng.random() < author.decorates:
        text = f"{text} {author.emoji}"
    if author.casing == "lower":
        return text.lower()
    return text.upper() if author.casing == "shouting" and rng.random() < 0.3 else text


def make_rows(seed: int) -> list[Row]:
    """All rows in file order: two messages a seed, some sent again, four bad rows."""
    rng = random.Random(seed)
    authors = make_authors(rng)
    rng.shuffle(authors)
    of_split = {"test": authors[:TEST_AUTHORS], "train": authors[TEST_AUTHORS:]}
    rows: list[Row] = []
    seen: set[str] = set()
    for label, (seeds, second) in read_seeds().items():
        rng.shuffle(seeds)
        rng.shuffle(second)
        more = {"test": second[:TEST_SECOND], "train": second[TEST_SECOND:]}
        for index, text in enumerate(seeds):
            split = "test" if index < TEST_SEEDS else "train"
            pair = rng.sample(of_split[split], 2)
            for author in pair:
                message = write(text, more[split], author, rng)
                while message in seen:  # a seed without slots, twice without habits
                    message = f"{author.greeting} {message}"
                seen.add(message)
                rows.append(Row(message, label, split, author.name))
    rows += _sent_again(rows, rng)
    rng.shuffle(rows)
    return _with_bad_rows(rows, rng)


def to_csv(rows: list[Row]) -> str:
    """The table as CSV with a header and \\n line ends."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(COLUMNS)
    table.writerows((row.text, row.label, row.split, row.author) for row in rows)
    return out.getvalue()


def _sent_again(rows: list[Row], rng: random.Random) -> list[Row]:
    again = rng.sample([row for row in rows if row.split == "train" and not row.text.isupper()], RESENT)
    changes = ("{} ?", "{} !", "again: {}", "{} (2nd try)", "{}  ", "Re: {}")
    return [replace(row, text=changes[i % len(changes)].format(row.text)) for i, row in enumerate(again)]


def _with_bad_rows(rows: list[Row], rng: random.Random) -> list[Row]:
    """Four rows as real tables have them: empty, blank, unlabelled, and a copy across splits with another label."""
    train = [row for row in rows if row.split == "train"]
    test = [row for row in rows if row.split == "test"]
    copied = next(row for row in train if row.label == "billing_question")
    bad = [
        replace(train[0], text=""),
        replace(train[1], text="   \t "),
        replace(train[2], text="Hello, I have a question about the thing from last time", label=""),
        replace(test[0], text=copied.text, label="refund"),
    ]
    for row in bad:
        rows.insert(rng.randrange(len(rows)), row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the sample set of support messages.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("data/text/messages.csv"))
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(to_csv(make_rows(arguments.seed)), encoding="utf-8", newline="")
    print(f"wrote {arguments.out}")


if __name__ == "__main__":
    main()
