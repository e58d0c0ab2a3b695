"""Story grammar: short, simple English stories from a seed.

    python3 text.py [seed] [count]      print some stories

A template is a sentence with `[one|another]` choices, which may nest, and `{h.his}` slots,
which are filled from the cast drawn once per story (so that names, pronouns, things and places
agree from the first line to the last). Same seed, same stories, on every machine: only
`random.Random` is used, and `random.Random(str)` does not depend on hash randomisation.
"""

import pathlib
import random
import re
import sys

import words as w


def read_plots(path=pathlib.Path(__file__).with_name("plots.txt")):
    """{name: [template, ...]} from plots.txt."""
    plots, lines = {}, None
    for line in path.read_text().splitlines():
        if line.startswith("== "):
            lines = plots.setdefault(line[3:], [])
        elif line.startswith("  "):
            lines[-1] += " " + line.strip()
        elif line and not line.startswith("#"):
            lines.append(line)
    return plots


PLOTS = read_plots()
OPENINGS = PLOTS.pop("opening")


class Word(str):
    """A string that may carry further forms as attributes, for `{h.his}` slots."""

    def __new__(cls, text, **forms):
        word = super().__new__(cls, text)
        word.__dict__.update(forms)
        return word


def with_article(phrase):
    """'old hat' -> 'an old hat'."""
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def being(name, pronoun, **more):
    """A person or animal with all pronoun forms; capitalised forms begin a sentence."""
    him, his = {"he": ("him", "his"), "she": ("her", "her"), "it": ("it", "its")}[pronoun]
    return Word(name, he=pronoun, him=him, his=his, self=him + "self", He=pronoun.capitalize(),
                His=his.capitalize(), Name=name[0].upper() + name[1:], **more)


def draw_hero(rng, taken):
    """A child or a small animal whose name is not yet in `taken`."""
    while True:
        kind = rng.random()
        pronoun = rng.choice(["she", "he"])
        adjective = rng.choice(w.CHILD_ADJECTIVES)
        if kind < 0.7:
            noun = {"she": "girl", "he": "boy"}[pronoun]
            name = rng.choice(w.GIRLS if pronoun == "she" else w.BOYS)
        else:
            noun = rng.choice(w.ANIMALS)
            name = rng.choice(w.ANIMAL_NAMES)
        if name not in taken:
            taken.add(name)
            return being(name, pronoun, noun=noun, a=with_article(f"{adjective} {noun}"),
                         adjective=adjective)


def thing(rng, noun, **more):
    """A thing with one or two adjectives: `a`, `the` and `my` forms."""
    adjectives = [rng.choice(w.SIZES), rng.choice(w.COLORS)]
    phrase = " ".join(adjectives[rng.randrange(3):] + [noun])
    return Word(noun, full=phrase, a=with_article(phrase), **more)


def draw_cast(rng):
    """All slots of one story."""
    taken = set()
    hero, friend = draw_hero(rng, taken), draw_hero(rng, taken)
    grown, pronoun = rng.choice(w.GROWN_UPS)
    place, preposition = rng.choice(w.PLACES)
    other, other_preposition = rng.choice([p for p in w.PLACES if p[0] != place])
    toy, use = rng.choice(w.TOYS)
    bake, the_bake, bake_it = rng.choice(w.BAKES)
    build, parts = rng.choice(w.BUILDS)
    skill, doing, failed = rng.choice(w.SKILLS)
    seed, plant = rng.choice(w.SEEDS)
    fear, when, scene = rng.choice(w.FEARS)
    animal, state, trouble, rescue = rng.choice(w.TROUBLED)
    broken, the_broken = rng.choice(w.BREAKABLES)
    weather = rng.choice(["sunny", "sunny", "sunny", "rainy", "windy", "snowy", "foggy"])
    hides = rng.sample(w.HIDING_PLACES, 3)
    ingredients = rng.sample(w.INGREDIENTS, 3)
    return {
        "h": hero, "f": friend, "g": being(grown, pronoun),
        "p": Word(place, at=f"{preposition} the {place}", to=f"to the {place}"),
        "q": Word(other, at=f"{other_preposition} the {other}", to=f"to the {other}"),
        "toy": thing(rng, toy, use=use), "treasure": thing(rng, rng.choice(w.TREASURES)),
        "bake": Word(bake, the=the_bake, it=bake_it, It=bake_it.capitalize(),
                     was="were" if bake_it == "they" else "was"),
        "build": Word(build, parts=parts), "skill": Word(skill, doing=doing, failed=failed),
        "seed": Word(seed, plant=plant),
        "fear": Word(fear, when=when, scene=scene.format(h=hero)),
        "animal": Word(animal, state=state, trouble=trouble, rescue=rescue, a=with_article(animal)),
        "broken": Word(broken, the=the_broken), "weather": rng.choice(w.WEATHER[weather]),
        "hide": Word(hides[0], second=hides[1], third=hides[2]),
        "mix": Word(ingredients[0], second=ingredients[1], third=ingredients[2]),
        "food": rng.choice(w.FOODS), "color": rng.choice(w.COLORS),
        "home": rng.choice(w.HOMES).format(p=place),
    }


CHOICE = re.compile(r"\[([^\[\]]*)\]")


def expand(rng, template, cast):
    """Choose among `[a|b]` from the inside out, fill the slots, tidy spaces and capitals."""
    while CHOICE.search(template):
        template = CHOICE.sub(lambda m: rng.choice(m.group(1).split("|")), template, count=1)
    text = re.sub(r"\s+", " ", template.format(**cast)).strip()
    return re.sub(r'(^|[.!?] |\." )("?)([a-z])',
                  lambda m: m.group(1) + m.group(2) + m.group(3).upper(), text)


def story(rng):
    """One story of 60 to 150 words, in one line."""
    while True:
        cast = draw_cast(rng)
        name = rng.choice(sorted(PLOTS))
        sentences = [rng.choice(OPENINGS)] + PLOTS[name]
        if rng.random() < 0.75:
            sentences = sentences + [rng.choice(w.MORALS)]
        text = " ".join(filter(None, (expand(rng, s, cast) for s in sentences)))
        if 60 <= len(text.split()) <= 150:
            return text


def stories(seed, count):
    """`count` stories; the training and the held-out text differ in their seeds."""
    rng = random.Random(f"bitloom-tiny-{seed}")
    return [story(rng) for _ in range(count)]


if __name__ == "__main__":
    arguments = [int(a) for a in sys.argv[1:]] + [1, 5][len(sys.argv) - 1:]
    print("\n\n".join(stories(*arguments)))
