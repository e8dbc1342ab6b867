"""Word lists and invented names shared by the English domains.

People and places are built from syllables, so that the vocabulary is open: a reader has to copy
a name from earlier in the passage, it cannot know it beforehand.
"""

from .core import capital

GIRLS = (
    "Ada Alma Anneke Asha Berit Bianca Carla Celia Clara Dalia Daria Edith Elena Elsa Esther Farah Fiona Freya "
    "Greta Hana Hedda Helen Ines Ingrid Irene Iris Ivy Jana Judith Kaja Karen Laila Leonie Lena Lucia Mara Marta "
    "Maya Mina Mira Nadia Nell Nina Nora Odile Olga Paula Petra Rana Rosa Ruth Sana Selma Sofia Tara Tessa Thea "
    "Ursula Vera Wanda Yara Zelda Zoe"
).split()
BOYS = (
    "Adam Albert Anton Arlo Basil Ben Boris Bruno Caspar Cyril Daniel David Edgar Emil Erik Farid Felix Finn Frank "
    "Gustav Hamid Hans Henry Hugo Igor Isaac Ivan Jakob Jonas Josef Julian Karim Karl Lars Leo Louis Lukas Marco "
    "Martin Max Milan Nathan Niels Noah Omar Oscar Otto Pablo Paul Peter Rafael Ravi Robert Rufus Samir Simon Stefan "
    "Tariq Theo Thomas Tobias Victor Viktor Walter Yusuf"
).split()

_ONSET = ("b br c ch d dr f fl g gr h j k kl l m n p pr r s sh st t th tr v w z").split()
_VOWEL = "a e i o u a e o ai ea ie ou".split()
_CODA = ["", "", "", "l", "n", "r", "s", "m", "nd", "rt", "lk", "ss", "th"]
_SURNAME_END = "man sen berg well ford son wick ley ar ov ini ez ner stein mont".split()
_PLACE_END = (
    "ton ville ham burg field mouth bridge haven wick dale stead port ford holm bury ness mere minster berg stad"
).split()


def _stem(rng, syllables):
    return "".join(rng.pick(_ONSET) + rng.pick(_VOWEL) + rng.pick(_CODA) for _ in range(syllables))


def surname(rng):
    return capital(_stem(rng, 1) + (rng.pick(_VOWEL[:5]) if rng.chance(30) else "") + rng.pick(_SURNAME_END))


def place(rng):
    name = capital(_stem(rng, 1) + (_stem(rng, 1) if rng.chance(25) else "") + rng.pick(_PLACE_END))
    return rng.pick(["North ", "Upper ", "Old ", "Lower ", "Saint "]) + name if rng.chance(12) else name


def river(rng):
    return capital(_stem(rng, 1) + rng.pick(["a", "e", "en", "er", "o", "is", "un"]))


def coined(rng):
    """A lower-case invented word: plants, minerals, instruments."""
    return _stem(rng, 2) + rng.pick(["", "a", "ine", "ium", "et", "o", "wort", "ite"])


class Person:
    """A person with names and the pronouns that go with them."""

    def __init__(self, rng, avoid=()):
        self.female = rng.chance(50)
        names = GIRLS if self.female else BOYS
        self.first = rng.pick([n for n in names if n not in avoid])
        self.last = surname(rng)
        self.full = self.first + " " + self.last
        self.title = ("Mrs " if rng.chance(50) else "Ms ") + self.last if self.female else "Mr " + self.last

    def bind(self, ctx, prefix):
        """Adds {prefix}, {prefix}_full, _he, _him, _his, _himself, _title to a template context."""
        he, him, his = ("she", "her", "her") if self.female else ("he", "him", "his")
        ctx.update(
            {
                prefix: self.first,
                prefix + "_full": self.full,
                prefix + "_last": self.last,
                prefix + "_title": self.title,
                prefix + "_he": he,
                prefix + "_him": him,
                prefix + "_his": his,
                prefix + "_himself": him + "self",
                prefix + "_kind": "woman" if self.female else "man",
                prefix + "_child": "girl" if self.female else "boy",
            }
        )


def cast(rng, ctx, *prefixes):
    """Binds several people with different first names; returns them."""
    people, used = [], set()
    for prefix in prefixes:
        person = Person(rng, used)
        used.add(person.first)
        person.bind(ctx, prefix)
        people.append(person)
    return people


JOBS = (
    "baker|carpenter|clockmaker|teacher|sailor|gardener|potter|nurse|librarian|fisher|farmer|miller|weaver|tailor|"
    "painter|surveyor|blacksmith|beekeeper|shoemaker|printer|musician|engineer|doctor|postman|ferryman|cook|"
    "glassblower|bookbinder|shepherd|astronomer|lighthouse keeper|mapmaker|basket maker|mechanic|innkeeper|"
    "translator|photographer|judge|geologist|pilot|stonemason|pharmacist"
).split("|")
OBJECTS = (
    "brass compass|silver key|wooden flute|small clock|leather notebook|glass lantern|blue scarf|iron box|old map|"
    "copper bell|pair of spectacles|paper kite|tin whistle|pocket watch|clay jar|ivory comb|wool coat|red umbrella|"
    "box of matches|bundle of letters|violin|carved spoon|green bottle|golden ring|telescope|canvas bag|"
    "ball of string|folding knife|music box|bag of seeds|chess set|walking stick|painted plate|straw hat|"
    "magnifying glass|tea kettle|photograph|wicker basket|steel hammer|silk ribbon"
).split("|")
ANIMALS = (
    "cat dog goat horse donkey fox owl crow hare sheep cow hen goose duck badger otter heron seal hedgehog mouse "
    "squirrel deer pony raven robin tortoise lizard frog bear wolf"
).split()
PLACES = (
    "market square|old harbour|railway station|library|stone bridge|mill|town hall|bakery|orchard|school|lighthouse|"
    "chapel|post office|ferry landing|workshop|cellar|attic|garden|river bank|barn|museum|well|tower|quarry|"
    "hospital|theatre|inn|greenhouse|boathouse|observatory"
).split("|")
LAND = (
    "forest|valley|lake|hill|marsh|coast|meadow|mountain pass|moor|gorge|island|plain|cave|waterfall|beach|desert|"
    "swamp|cliff|pine wood|vineyard"
).split("|")
WEATHER = ("rain|snow|fog|wind|sunshine|thunder|frost|hail|mist|heat").split("|")
ADJ_THING = (
    "small|heavy|old|plain|broken|polished|dusty|beautiful|ordinary|strange|faded|precious|crooked|shiny|battered|"
    "delicate|rusty|warm|damp|painted|narrow|simple|curious|elegant"
).split("|")
ADJ_PERSON = (
    "patient|stubborn|cheerful|quiet|careful|clever|lonely|generous|curious|proud|tired|honest|brave|shy|"
    "absent-minded|practical|restless|gentle|suspicious|hopeful|serious|talkative"
).split("|")
ADVERB = (
    "slowly|quietly|carefully|suddenly|gently|quickly|proudly|sadly|eagerly|calmly|nervously|cheerfully|politely|"
    "firmly|patiently|thoughtfully|reluctantly|at once"
).split("|")
COLOURS = "red blue green yellow white black grey brown purple orange pink silver golden crimson".split()
FOODS = (
    "bread|cheese|soup|apples|honey|porridge|plums|fish|potatoes|eggs|butter|onions|pears|walnuts|rice|beans|mushrooms|"
    "cake|tea|milk|carrots|cabbage|lentils|olives|cherries|pancakes"
).split("|")
MATERIALS = "wood stone brick glass iron copper clay wool linen leather paper steel silver marble wax cork".split()
MONTHS = "January February March April May June July August September October November December".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
SEASONS = "spring summer autumn winter".split()
TIMES = (
    "in the morning|before dawn|at noon|in the afternoon|towards evening|after dark|at midnight|at sunrise|"
    "just before sunset|after breakfast|late at night"
).split("|")
CROPS = "wheat barley oats rye potatoes apples grapes hops flax hemp olives beets clover maize".split()
TRADES = (
    "fishing|weaving|brewing|glass making|shipbuilding|printing|mining|pottery|cheese making|salt production|"
    "paper making|clockmaking|tourism|timber|leather working"
).split("|")


def common(ctx):
    """The lists every English template may draw from."""
    ctx.update(
        job_any=JOBS,
        object_any=OBJECTS,
        animal_any=ANIMALS,
        spot=PLACES,
        land=LAND,
        weather_any=WEATHER,
        adj=ADJ_THING,
        padj=ADJ_PERSON,
        adv=ADVERB,
        colour=COLOURS,
        food=FOODS,
        material=MATERIALS,
        month=MONTHS,
        day=DAYS,
        season_any=SEASONS,
        time=TIMES,
        crop=CROPS,
        trade=TRADES,
    )
    return ctx
