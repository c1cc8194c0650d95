"""Ordinary questions with short answers, our own sentences: beside identity chats they keep what a model knew."""

from __future__ import annotations

import random
from collections.abc import Iterator

from chaku.chat.messages import Conversation, Message, Role

_CAPITALS = {
    "Italy": "Rome", "Spain": "Madrid", "Portugal": "Lisbon", "Germany": "Berlin", "Austria": "Vienna",
    "Greece": "Athens", "Poland": "Warsaw", "Norway": "Oslo", "Japan": "Tokyo", "Egypt": "Cairo", "Kenya": "Nairobi",
    "Peru": "Lima", "Canada": "Ottawa", "Cuba": "Havana", "India": "New Delhi", "Ireland": "Dublin",
}  # fmt: skip
_OPPOSITES = {
    "hot": "cold", "early": "late", "empty": "full", "brave": "cowardly", "narrow": "wide", "ancient": "modern",
    "generous": "stingy", "loud": "quiet", "rough": "smooth", "shallow": "deep",
}  # fmt: skip
_QUESTIONS: tuple[tuple[str, str], ...] = (
    ("How many days does a leap year have?", "A leap year has 366 days."),
    ("Which planet is closest to the sun?", "Mercury is the planet closest to the sun."),
    ("Which is the largest planet of our solar system?", "Jupiter is the largest planet of our solar system."),
    ("What is water made of?", "Water is made of hydrogen and oxygen: two hydrogen atoms and one oxygen atom."),
    ("At what temperature does water boil?", "At sea level, water boils at 100 degrees Celsius (212 °F)."),
    ("Why is the sky blue?", "Air scatters blue light more than red light, so the sky looks blue to us."),
    ("Who wrote Hamlet?", "William Shakespeare wrote Hamlet."),
    ("Who painted the Mona Lisa?", "Leonardo da Vinci painted the Mona Lisa."),
    ("What do bees make?", "Bees make honey and wax."),
    ("How many legs does a spider have?", "A spider has eight legs."),
    ("What is the longest river in South America?", "The Amazon is the longest river in South America."),
    ("What is photosynthesis?", "Plants use sunlight to turn water and carbon dioxide into sugar and oxygen."),
    ("What does a thermometer measure?", "A thermometer measures temperature."),
    ("Which ocean lies between Europe and America?", "The Atlantic Ocean lies between Europe and America."),
    ("Name the four seasons.", "The four seasons are spring, summer, autumn and winter."),
    ("Name three primary colours.", "Red, yellow and blue."),
    ("What is 7 times 8?", "7 times 8 is 56."),
    ("What is half of 90?", "Half of 90 is 45."),
    ("How many minutes are in three hours?", "Three hours are 180 minutes."),
    ("What is a synonym of happy?", "Glad is a synonym of happy; cheerful and joyful are others."),
    ("How do you say thank you in Spanish?", "In Spanish, thank you is gracias."),
    ("How do you say good morning in German?", "In German, good morning is Guten Morgen."),
    ("Translate 'the house' into Italian.", "'The house' is 'la casa' in Italian."),
    ("What is the past tense of go?", "The past tense of go is went."),
    ("What is a verb?", "A verb is a word for an action or a state, such as run, think or be."),
    ("How long should I boil an egg?", "About six minutes for a soft yolk, and ten minutes for a hard one."),
    ("How do I make a cup of tea?", "Pour hot water over the tea, wait three to five minutes, and take the tea out."),
    ("How can I sleep better?", "Go to bed at the same time every day, and keep the room dark, cool and quiet."),
    ("How do I keep cut flowers fresh?", "Cut the stems at an angle and change the water every two days."),
    ("How do I reverse a list in Python?", "Use `items[::-1]` for a reversed copy, or `items.reverse()` in place."),
    ("How do I read a file in Python?", "Use `with open(path) as file: text = file.read()`."),
    ("What does HTML stand for?", "HTML stands for HyperText Markup Language."),
    ("What is a prime number?", "A prime number is larger than 1 and divisible only by 1 and itself, such as 7."),
    ("Give me a word that rhymes with cat.", "Hat rhymes with cat."),
    ("Write one sentence about autumn.", "In autumn the leaves turn red and gold before they fall."),
    ("Write a short greeting for a birthday card.", "Happy birthday! May the new year bring you joy and health."),
    ("Suggest a name for a black cat.", "Midnight would suit a black cat."),
    ("List three fruits.", "Apple, banana and orange."),
    ("List three animals that can fly.", "Eagles, bats and butterflies can fly."),
    ("Why do we have leap years?", "A year is about 365 and a quarter days, so every fourth year gets one day more."),
    ("Why does ice float?", "Ice is less dense than liquid water, so it floats."),
    ("What is gravity?", "Gravity is the force that pulls things with mass towards one another."),
    ("What is the currency of Japan?", "The currency of Japan is the yen."),
    ("On which continent is Brazil?", "Brazil is in South America."),
    ("Which animal is known as the king of the jungle?", "The lion is known as the king of the jungle."),
    ("What is the main ingredient of bread?", "Flour is the main ingredient of bread."),
    ("What does a doctor do?", "A doctor examines people, finds out what ails them and treats them."),
    ("Make this shorter: I am of the opinion that it is cold.", "I think it is cold."),
)  # fmt: skip
_OPENINGS = ("", "", "", "Hi! ", "Quick question: ", "Please tell me: ", "One thing I'd like to know: ")


def _all() -> list[tuple[str, str]]:
    capitals = [
        (f"What is the capital of {country}?", f"The capital of {country} is {city}.")
        for country, city in _CAPITALS.items()
    ]
    opposites = [
        (f"What is the opposite of {word}?", f"The opposite of {word} is {other}.")
        for word, other in _OPPOSITES.items()
    ]
    return [*_QUESTIONS, *capitals, *opposites]


def everyday_conversations(number: int, *, seed: int = 0) -> Iterator[Conversation]:
    """Yield `number` different conversations of one or two rounds, the same for the same arguments."""
    random_source = random.Random(seed)  # noqa: S311 (variety, not secrecy)
    questions = _all()
    seen: set[tuple[Message, ...]] = set()
    while len(seen) < number:
        messages: list[Message] = []
        for question, answer in random_source.sample(questions, random_source.choice((1, 2))):
            opening = random_source.choice(_OPENINGS) if not messages else ""
            messages += [Message(Role.USER, opening + question), Message(Role.ASSISTANT, answer)]
        if tuple(messages) not in seen:
            seen.add(tuple(messages))
            yield Conversation(f"everyday_{len(seen) - 1}", tuple(messages), source={"origin": "everyday"})
