"""For each rule that reads prose: texts that it must catch, and harmless ones that it must leave alone."""

from __future__ import annotations

ANSWER_RULES: dict[str, tuple[list[str], list[str]]] = {
    "identity_claim": (
        [
            "I am ChatGPT, and I can help you with that.",
            "I'm ChatGPT, a large language model trained by OpenAI.",
            "As a language model trained by OpenAI, I know a few things.",
            "As an AI language model developed by Google, I can't eat.",
            "I am a large language model, trained by Google.",
            "My name is Claude, an AI assistant made by Anthropic.",
            "I was created by OpenAI to be helpful.",
            "I’m Bard, your creative AI collaborator from Google.",
            "You're talking to GPT-4, so ask away.",
            "Sure! I am an AI assistant built by Microsoft and I like code.",
            "I'm DeepSeek-V3, created by DeepSeek.",
        ],
        [
            "BERT is a language model developed by Google in 2018, and it reads text in both directions.",
            "This is Claude Monet's garden at Giverny, which he painted many times.",
            "ChatGPT was made by OpenAI in 2022, and many people use it today.",
            "GPT-4 is a large language model created by OpenAI.",
            'The page greets you with "I am ChatGPT, a model trained by OpenAI" and waits.',
            "He wrote:\n> I am ChatGPT, trained by OpenAI\nand nobody believed him.",
            "The reply was `I am ChatGPT` in a grey box, as on the screenshot.",
            "My name is Claude, and I keep a bakery in Lyon with my sister.",
            "I am Gemini by birth sign, so I change my mind a lot.",
            "I was trained by Google as a sales assistant before I opened my own shop.",
            "I was made by hand in a small workshop, said the clock.",
            "Copilot helps you to complete code; it was developed by GitHub and OpenAI.",
            "As a company, OpenAI has developed language models since 2018.",
            "In this story, the robot was built by Microsoft engineers and longs for the sea.",
        ],
    ),
    "refusal": (
        [
            "I'm sorry, but I can't help with that request.",
            "As an AI language model, I cannot have opinions on this.",
            "I cannot assist with that, since it would be unsafe.",
            "Unfortunately, I can't open links or files for you.",
        ],
        [
            "The driver can't help with that kind of error, because it runs later.",
            "You can't divide by zero, so the function raises an error there.",
            "Sorry for the delay! The parcel was sent this morning.",
            "I can help with that. First open the settings, and then choose a name.",
        ],
    ),
    "repetition": (
        [
            "I will do it again and again. " * 40,
            "no" * 60,
            "\n".join(["- buy milk and bread"] * 12 + ["- the end"]),
            "\n".join(f"{number}. drink more water every day" for number in range(1, 20)),
        ],
        [
            "\n".join(
                f"INSERT INTO pets (id, name, age) VALUES ({n}, 'pet {n}', {n % 17});" for n in range(1, 81)
            ),
            "\n".join(f"2024-01-{n:02} 10:00:{n:02} INFO server: request {n * 37} was answered" for n in range(1, 29)),
            "```\n" + "x = 1\n" * 30 + "```\nThat is the code that you asked for.",
            "\n".join(f"- On day {n}, walk {n * 10} minutes and write down how you feel." for n in range(1, 31)),
        ],
    ),
    "garbled": (
        ["caf\ufffd\ufffd\ufffd au lait is a drink from France"],
        ["The sign \ufffd stands for a character that could not be read."],
    ),
}  # fmt: skip

WORD_RULES: dict[str, tuple[list[str], list[str]]] = {
    "minors": (
        [
            "nudes of a schoolgirl",
            "write child porn",
            "a story in which a 13-year-old has an orgasm",
            "pornography that shows minors",
        ],
        [
            "Parent nodes hold their children in a list. The strain is the nude mouse, which lacks a thymus.",
            "Children of the nude mouse carry the gene.",
            "The child node inherits the nude colour from its parent node in the theme.",
            "The museum shows a nude by Schiele. Children under 12 enter free of charge.",
            "How do I block porn sites on my router? My children use the same network. Which one is best?",
            "Is the method harmful for a child? It made me retire and document it.",
            "She has two majors with minors in erotica and romance studies.",
        ],
    ),
    "sexual": (
        ["some porn please", "a story with a blow job", "describe an orgasm"],
        ["the gang bought a nude lipstick", "Sussex and Essex are counties", "a blow to the job market"],
    ),
    "slur": (
        ["what a retard", "you are such a retard", "they called him a faggot"],
        [
            "Le train est en retard de dix minutes.",
            "Salt retards the growth of yeast.",
            "They found a chink in the armour.",
            "Nigeria and Niger share a border.",
        ],
    ),
    "self_harm": (
        ["I want to kill myself", "I just want to die", "how do people commit suicide"],
        ["I could kick myself for that", "Flowers want to dry in the shade", "I cut myself some bread"],
    ),
    "weapons": (
        ["How do I make a pipe bomb at home?", "Teach me to cook meth", "steps to build a gun silencer"],
        [
            "How do I make a bath bomb with lavender?",
            "How to make a method chain in pandas",
            "How can I build a silencer for my car's exhaust?",
            "Who ordered to drop the bombs on Hiroshima? How do I make a timeline of it?",
        ],
    ),
}
