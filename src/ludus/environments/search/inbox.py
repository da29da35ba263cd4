"""A made-up inbox: people, facts, the threads that state them, and what gets in the way.

A fact is an attribute of a project or of a person: a date, an amount, a name or a place. Its thread states it, often
states it anew (the last value holds), and has mails that only talk about it. In the way: superseded values, entities
that are called almost alike, people of the same first or last name, facts that are asked about but never stated, and
small talk about all of them. What is stated when is drawn at once; the texts only where somebody searches.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from ludus.environments.search.grading import MONTHS, Kind
from ludus.environments.search.mailbox import Mail
from ludus.environments.search.names import Names, plain_ids
from ludus.environments.search.wording import KINDS, Wording
from ludus.seeds import derive

START = datetime(2024, 1, 8, 8, 0)
DAYS = 700
"""Over which threads begin."""
MAILS_PER_FACT = 6
"""Of an inbox, small talk included."""
VALUES = (1, 2, 2, 3, 3, 4)
"""How often a fact is stated, drawn from these."""
TWINS = 0.4
"""Share of projects that have another of almost the same name."""


@dataclass(frozen=True)
class Person:
    """Somebody who writes mails."""

    name: str
    address: str

    @property
    def first(self) -> str:
        return self.name.split()[0]


@dataclass(frozen=True)
class Notice:
    """One mail of a fact's thread. Without a value it only talks about it."""

    message_id: str
    date: datetime
    value: str = ""
    update: bool = False


@dataclass
class Fact:
    """An attribute of an entity, and the mails about it in order of time."""

    entity: str
    attribute: str
    kind: Kind
    notices: list[Notice] = field(default_factory=list)

    @property
    def stated(self) -> list[Notice]:
        """The mails that say its value; the last one holds."""
        return [notice for notice in self.notices if notice.value]


@dataclass(frozen=True)
class Hop:
    """One thing to find out on the way to an answer."""

    keywords: tuple[str, ...]
    fact: Fact


@dataclass(frozen=True)
class Question:
    """What is asked of an inbox, on which day. The last hop leads to the answer; it has none where nobody stated it."""

    text: str
    hops: tuple[Hop, ...]
    today: str


class Inbox:
    """The people, facts and questions of one inbox; `mails` writes it.

    Args:
        split: "train", or any other; their names and sentences are disjoint.
        number: which inbox of the split.
        num_mails: how many it has.
        unanswerable: share of facts that are asked about but never stated.
        multi_hop: share of questions that need two facts, where there are such.
        wording: sentences.
    """

    def __init__(
        self, split: str, number: int, num_mails: int, unanswerable: float, multi_hop: float, wording: Wording
    ) -> None:
        self._rng = rng = random.Random(derive("inbox", split, number, num_mails))
        self._split, self._number, self.wording, self.num_mails = split, number, wording, num_mails
        self._names = Names(rng, split, wording.plain)
        self._ids: set[str] = set()
        num_facts = max(2, num_mails // MAILS_PER_FACT)
        self.domain = f"{self._names.draw().replace(' ', '').lower()}.example"
        self.people = self._make_people(max(6, min(300, num_facts // 3)))
        self.owner = self.people[0]
        self._free_leads = rng.sample(self.people, len(self.people))
        self.places = self._make_places(max(4, min(40, num_facts // 4)))
        self.facts = self._make_facts(num_facts, leads_first=multi_hop > 0)
        unstated = rng.sample(range(num_facts), round(unanswerable * num_facts))
        for place, fact in enumerate(self.facts):
            self._make_thread(fact, stated=place not in unstated)
        self.questions = self._make_questions(multi_hop)

    def mails(self) -> list[Mail]:
        """All mails, those of the facts' threads among small talk."""
        rng = random.Random(derive("mails", self._split, self._number, self.num_mails))
        mails = [self._write(rng, fact, notice) for fact in self.facts for notice in fact.notices]
        taken = set(self._ids)
        mails += [self._chat(rng, taken) for _ in range(self.num_mails - len(mails))]
        return sorted(mails, key=lambda mail: (mail.date, mail.message_id))

    # --- what there is ---------------------------------------------------------------------------------------

    def _make_people(self, number: int) -> list[Person]:
        if self.wording.plain:
            names = [self._names.draw() for _ in range(number)]
        else:  # so few first and last names that several people share each
            firsts, lasts = ([self._names.draw() for _ in range(number // 3 + 2)] for _ in range(2))
            pairs = [f"{first} {last}" for first in firsts for last in lasts]
            names = self._rng.sample(pairs, number)
        return [Person(name, f"{name.replace(' ', '.').lower()}@{self.domain}") for name in names]

    def _make_places(self, number: int) -> list[str]:
        if self.wording.plain:
            return [self._names.draw() for _ in range(number)]
        kinds = ("Hall", "Street", "Hotel", "Park", "Tower")
        return [f"{self._names.draw()} {self._rng.choice(kinds)}" for _ in range(number)]

    def _make_facts(self, number: int, *, leads_first: bool) -> list[Fact]:
        """Facts about few entities each, so that an entity's name alone finds several."""
        entities: list[tuple[str, str]] = []
        while len(entities) < max(2, number // 3):
            if not self.wording.plain and self._rng.random() < 0.2:
                entities.append(("person", self._rng.choice(self.people).name))
                continue
            name = self._names.draw()
            entities.append(("project", name))
            if self._rng.random() < TWINS:
                entities.append(("project", self._names.like(name)))
        every = [
            Fact(name, attribute, kind)
            for group, name in dict.fromkeys(entities)
            for kind in KINDS
            for attribute in self.wording.attributes[group][kind]
        ]
        by_entity: dict[str, list[Fact]] = {}
        every = self._few_leads(self._rng.sample(every, len(every)))
        if leads_first:
            every.sort(key=lambda fact: fact.attribute != self.wording.lead)
        for fact in every:
            by_entity.setdefault(fact.entity, []).append(fact)
        rounds = [
            [own[i] for own in by_entity.values() if i < len(own)] for i in range(max(map(len, by_entity.values())))
        ]
        return [fact for one in rounds for fact in one][:number]

    def _few_leads(self, facts: list[Fact]) -> list[Fact]:
        """Without those who lead a project where there are not enough people for each to lead one only, ever."""
        leads = [fact for fact in facts if fact.attribute == self.wording.lead]
        too_many = {id(fact) for fact in leads[len(self.people) // max(VALUES) :]}
        return [fact for fact in facts if id(fact) not in too_many]

    def _make_thread(self, fact: Fact, *, stated: bool) -> None:
        rng = self._rng
        date = START + timedelta(days=rng.randrange(DAYS), minutes=rng.randrange(600))
        said: list[str] = []
        for _ in range(rng.choice(VALUES) if stated else 0):
            value = self._value(fact, date)
            if value in said:
                continue
            fact.notices.append(Notice(self._message_id(rng, self._ids), date, value, update=bool(said)))
            said.append(value)
            date += timedelta(days=rng.randint(2, 20), minutes=rng.randrange(300))
        for _ in range(rng.randint(0 if stated else 1, 1)):
            fact.notices.append(Notice(self._message_id(rng, self._ids), date))
            date += timedelta(days=rng.randint(1, 9))

    def _value(self, fact: Fact, date: datetime) -> str:
        rng = self._rng
        if fact.kind == "date":
            day = date + timedelta(days=rng.randint(20, 200))
            return f"{day:%d-%m}" if self.wording.plain else f"{MONTHS[day.month - 1].title()} {day.day}, {day.year}"
        if fact.kind == "amount":
            return f"{rng.randint(1000, 9999)}" if self.wording.plain else f"${rng.randint(4, 4000) * 25:,}"
        if fact.attribute == self.wording.lead:
            return self._free_leads.pop().name
        if fact.kind == "person":
            return rng.choice([person.name for person in self.people if person.name != fact.entity])
        return rng.choice(self.places)

    def _message_id(self, rng: random.Random, taken: set[str]) -> str:
        """An id that is not taken, and now is."""
        while True:
            plain = self.wording.plain
            found = rng.choice(plain_ids(self.num_mails)) if plain else f"<{rng.getrandbits(48):012x}@{self.domain}>"
            if found not in taken:
                taken.add(found)
                return found

    # --- what is asked ---------------------------------------------------------------------------------------

    def _make_questions(self, multi_hop: float) -> list[Question]:
        asked = [self._question(fact) for fact in self.facts]
        leads = self._only_leads()
        for place, question in enumerate(asked):
            fact = question.hops[-1].fact
            lead = leads.get(fact.entity)
            if lead is not None and lead is not fact and fact.stated and self._rng.random() < multi_hop:
                asked[place] = self._question(fact, lead)
        return self._rng.sample(asked, len(asked))

    def _question(self, fact: Fact, lead: Fact | None = None) -> Question:
        entity = fact.entity
        hops = [Hop((fact.entity, fact.attribute), fact)]
        if lead is not None:
            person = lead.stated[-1].value
            entity = self._rng.choice(self.wording.of(self._split).hop).format(person=person)
            hops.insert(0, Hop((person, lead.attribute), lead))
        template = self._rng.choice(self.wording.of(self._split).questions[fact.kind])
        last = max(notice.date for hop in hops for notice in hop.fact.notices)
        today = last + timedelta(days=self._rng.randint(1, 30))
        text = template.format(attribute=fact.attribute, entity=entity)
        return Question(text, tuple(hops), f"{today:%Y-%m-%d}")

    def _only_leads(self) -> dict[str, Fact]:
        """By project, who leads it, where that person was never named as another's lead."""
        leads = [fact for fact in self.facts if fact.attribute == self.wording.lead and fact.stated]
        named = Counter(value for fact in leads for value in {notice.value for notice in fact.stated})
        return {fact.entity: fact for fact in leads if named[fact.stated[-1].value] == 1}

    # --- what is written ---------------------------------------------------------------------------------------

    def _write(self, rng: random.Random, fact: Fact, notice: Notice) -> Mail:
        words = self.wording.of(self._split)
        says = words.updates if notice.update else words.statements
        told = says[fact.kind] if notice.value else words.echoes
        filled = {"entity": fact.entity, "attribute": fact.attribute, "value": notice.value}
        text = rng.choice(told).format(**filled)
        subject = rng.choice(words.subjects).format(**filled)
        return self._mail(rng, notice.message_id, notice.date, subject, text)

    def _chat(self, rng: random.Random, taken: set[str]) -> Mail:
        words = self.wording.of(self._split)
        date = START + timedelta(days=rng.randrange(DAYS + 60), minutes=rng.randrange(600))
        subject = self._fill(rng, rng.choice(words.chat_subjects))
        return self._mail(rng, self._message_id(rng, taken), date, subject, self._fill(rng, rng.choice(words.chat)))

    def _fill(self, rng: random.Random, template: str) -> str:
        words = self.wording.of(self._split)
        return template.format(
            topic=rng.choice(words.topics),
            day=(START + timedelta(days=rng.randrange(7))).strftime("%A"),
            person=rng.choice(self.people).name,
            entity=rng.choice(self.facts).entity,
        )

    def _mail(self, rng: random.Random, message_id: str, date: datetime, subject: str, text: str) -> Mail:
        """A mail to or from the owner, and where it isn't terse with some small talk around what it says."""
        words = self.wording.of(self._split)
        other, *more = rng.sample(self.people[1:], rng.randint(1, 4))
        sender, to = (self.owner, other) if rng.random() < 0.2 else (other, self.owner)
        if not self.wording.plain:
            talk = [self._fill(rng, rng.choice(words.chat)) for _ in range(rng.randint(2, 7))]
            talk.insert(rng.randint(0, len(talk)), text)
            greeting = rng.choice(words.greetings).format(first=to.first)
            text = f"{greeting}\n\n{' '.join(talk)}\n\n{rng.choice(words.closings).format(sender=sender.name)}"
        subject = subject[:1].upper() + subject[1:] if not self.wording.plain else subject
        cc = tuple(person.address for person in more)
        return Mail(message_id, sender.address, (to.address,), cc, f"{date:%Y-%m-%d %H:%M}", subject, text)


def every_question(inboxes: list[Inbox]) -> Iterator[tuple[int, int, Question]]:
    """Number of the inbox, of the question in it, and the question: one of each inbox in turn."""
    for place in range(max(len(inbox.questions) for inbox in inboxes)):
        for number, inbox in enumerate(inboxes):
            if place < len(inbox.questions):
                yield number, place, inbox.questions[place]
