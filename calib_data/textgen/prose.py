"""Story-like prose: one cast, one object and one promise per passage, recalled to the end."""

from . import lexicon as lx
from .core import fill, in_words, sentences

OPENINGS = [
    (
        "{A} {a_last} was {an:a_padj} {a_job} who lived in {town}, [a small town|a quiet village|an old port|a market"
        " town] [at the edge of|not far from|between the river and] the {land_a}."
    ),
    (
        "In the {season} of that year, {a_full} came to {town} [to work as|hoping to become|because the town needed]"
        " {an:a_job}."
    ),
    "Nobody in {town} could remember {an:season} with so much {weather}, and {a_full}, the {a_job}, was no exception.",
    "When {a_full} was {age}, {a_his} [grandmother|grandfather|aunt|uncle] gave {a_him} {an:thing}.",
    (
        "There was once {an:a_job} named {a}, who kept {an:thing} [under the bed|on the window sill|in a locked"
        " drawer|behind the stove]."
    ),
    (
        "The road to {town} follows the {river} for {miles} miles, and {a_full} had walked it [many times|only once"
        " before|every {season}]."
    ),
    "It was {b_full} who first noticed that the {thing_noun} was missing.",
]
SETTINGS = [
    "The house stood near the {spot_a}, where you could hear the {animal} and smell the {food}.",
    "Every {day} {a_he} walked past the {spot_a} and across the {spot_b} with {an:thing} in {a_his} [hand|pocket|bag].",
    "People said that {a} was the best {a_job} in {town}, but {b}, who knew {a_him} best, called {a_him} {b_word}.",
    "{A_his} [friend|neighbour|cousin|pupil] {b}, {an:b_padj} {b_job}, often came to visit {time}.",
    "{A} had lived there for {years} years, and in all that time {a_he} had never [seen|crossed|visited] the {land_a}.",
    "The {season} had been [long|short|cold|dry|wet], and the {spot_a} was full of {food}.",
    "From the window of the {spot_a} one could see the {land_a}, and beyond it the [roofs|lights|fields] of {town_b}.",
    "There were {small} {animal_pl} in the yard and {an:adj} {colour} door that never quite closed.",
]
WANTS = [
    (
        "What {a} wanted more than anything was to [find out who had made|repair|understand|sell|give back] the"
        " {thing_noun}."
    ),
    "{A} had made a promise to {b}: before the first {weather}, {a_he} would take the {thing_noun} to {town_b}.",
    (
        'One {day} a letter arrived from {c_full} of {town_b}. ["Bring me the {thing_noun},"|"I must see the'
        ' {thing_noun},"] it said, "and I will tell you [who made it|what it is for|where it came from|what became of'
        ' your family]."'
    ),
    "Then, {time}, the {thing_noun} [disappeared|was gone|stopped working|was stolen], and nothing was the same.",
]
PROMISE = '"If you ever lose your way," {b} had told {a_him}, "{advice}." {A} had laughed at the time.'
OBSTACLES = [
    (
        "The next day there was {weather}. {A} [waited|hesitated|sat] at the {spot_a} and [counted|looked at] the"
        " {number} coins in {a_his} purse."
    ),
    "But the bridge over the {river} was closed, and the ferry would not leave before {day_b}.",
    (
        '"You cannot go alone," said {b}. "The {land_a} is no place for {an:a_job}." "Then come with me," {a} answered'
        " {adv}."
    ),
    (
        '{B} shook {b_his} head. "I have seen {small} people leave {town} in such {weather}, and only {smaller} came'
        ' back."'
    ),
    "The door of the {spot_b} was locked. {A} knocked {adv}, but nobody answered except {an:animal}.",
    (
        'On the way {a_he} met {an:c_padj} {c_kind} with {an:other}. "My name is {c}," {c_he} said {adv}. '
        '"I am {an:c_job} from {town_b}. What are you carrying?"'
    ),
    "At the {spot_b} {a_he} lost [a shoe|{a_his} hat|{a_his} way|an hour], and it was already getting dark.",
    "Somebody had written {number_words} on the wall of the {spot_b}, and under it the name {town_b}.",
]
TURNS = [
    'Then {a} remembered what {b} had said: "{advice_cap}." So {a_he} did exactly that.',
    (
        '{C} looked at the {thing_noun} for a long time. "I know this," {c_he} said at last. "It belonged to my '
        '[mother|father|sister|brother|teacher], who was {an:c_job} too."'
    ),
    (
        "{A_he} opened the {thing_noun} {adv}. Inside there was a [note|drawing|name|number], written in {colour} ink:"
        " {number}."
    ),
    '"Is that {thing_an}?" asked {c}. "It is," said {a}, "and it is not for sale, not even for {number} coins."',
    (
        "For {small} days they worked together at the {spot_b}, {a} with the {thing_noun} and {c} with the"
        " {other_noun}, and they spoke of nothing but {food} and the {weather}."
    ),
    (
        "The {animal} that had followed {a_him} from {town} suddenly [stopped|turned round|began to dig|ran ahead] near"
        " the {spot_b}."
    ),
    '"{number_words_cap}," said {c} {adv}. "That is the number of steps from the {spot_a} to the {spot_b}."',
    "It took {a_him} {small} hours to cross the {land_a}, and when {a_he} reached {town_b}, the {weather} was over.",
    (
        "{A} gave {c} [half of the {food}|the last of the {food}|a piece of {food}], and in return {c} gave {a_him}"
        " {an:other}."
    ),
]
ENDINGS = [
    (
        'When {a} came home to {town}, {b} was waiting at the {spot_a}. "Well?" asked {b}. "{advice_cap}," said {a},'
        " and they both laughed."
    ),
    (
        "To this day the {thing_noun} [hangs|stands|lies] in the {spot_b} of {town_b}, and under it is written: "
        '"{a_full}, {a_job}, {town}."'
    ),
    (
        "{A} never sold the {thing_noun}. [Years later|Much later|In the end] {a_he} gave it to {an:young_child} named"
        " {young}, who was {age}."
    ),
    (
        "That {season} {a} and {c} opened a small [shop|school|workshop] near the {spot_a}. Over the door hung the"
        " {thing_noun}."
    ),
    (
        "And if you pass the {spot_b} of {town_b} {time}, you may still see {a_full} there, {an:a_padj} {a_job} with"
        " {thing_an}."
    ),
    (
        '"I thought you had lost it," said {b}, pointing at the {thing_noun}. "So did I," said {a}. "But {c} of'
        ' {town_b} found it."'
    ),
    (
        "{B} counted the coins again. There were {number}, [no more and no less|exactly as {c} had said|one for every"
        " step]."
    ),
]
ADVICE = [
    "follow the {river} until you see the {spot_b}",
    "ask for {c} at the {spot_b}",
    "count to {number_words} and look up",
    "trust the {animal} and not the map",
    "never open {thing_an} in the {weather}",
    "leave the {food} and keep the {thing_noun}",
    "wait for the {weather} to pass",
    "speak {adv} and listen twice",
    "go to {town_b} and not to the {land_a}",
]
EVERYDAY = [
    "{A_he} [put|laid|left] the {thing_noun} on the table, next to the {food}, and [sat down|went out|fell asleep].",
    "The {animal} [slept|waited|sat] by the door and did not [move|make a sound|look up].",
    '"Good {part}," said {b}. "Good {part}, {b}," said {a}. "Have you eaten?"',
    "They ate {food} and {food_b} and talked about the {weather}, the {land_a} and the price of {food_b}.",
    "{B} had brought {an:other}, which {b_he} had bought in {town_b} for {small} coins.",
    "It was [warm|cold|dark|bright] at the {spot_a}, and somebody was singing about {town_b}.",
    "{A} was [not afraid|a little afraid|too tired to sleep|glad of the company], because {b} was there.",
    "There was no {weather} that night, only the sound of the {river} and of {an:animal} somewhere near the {land_a}.",
    (
        '"What do you know about {town_b}?" asked {a}. "Only that {c} lives there," said {b} {adv}, "and that they like'
        ' {food}."'
    ),
    "{A} [thought of|wrote to|dreamed of] {b}, who would have [laughed at|understood|enjoyed] this.",
]


def context(rng):
    """One story's fixed facts: every list item that must stay the same is drawn here, once."""
    ctx = lx.common({})
    lx.cast(rng, ctx, "a", "b", "c")
    thing, other = rng.sample([o for o in lx.OBJECTS if not o.startswith(("pair", "box", "bundle", "ball", "bag"))], 2)
    jobs, animals = rng.sample(lx.JOBS, 3), rng.sample(lx.ANIMALS, 2)
    spots, foods = rng.sample(lx.PLACES, 2), rng.sample(lx.FOODS, 2)
    child = lx.Person(rng)
    number, small = rng.between(12, 400), rng.between(3, 9)
    ctx.update(
        a_job=jobs[0],
        b_job=jobs[1],
        c_job=jobs[2],
        a_padj=rng.pick(lx.ADJ_PERSON),
        b_padj=rng.pick(lx.ADJ_PERSON),
        c_padj=rng.pick(lx.ADJ_PERSON),
        b_word=rng.pick(["a dreamer", "a fool", "a fox", "a saint", "an old soul", "a bad cook"]),
        town=lx.place(rng),
        town_b=lx.place(rng),
        river=lx.river(rng),
        thing=thing,
        thing_noun=thing.split(" ", 1)[-1],
        thing_an=fill(rng, "{an:thing}", {"thing": thing}),
        other=other,
        other_noun=other.split(" ", 1)[-1],
        spot_a=spots[0],
        spot_b=spots[1],
        land_a=rng.pick(lx.LAND),
        animal=animals[0],
        animal_pl=(
            animals[1] + {"fox": "es"}.get(animals[1], "s")
            if animals[1] not in ("sheep", "deer", "goose", "mouse")
            else {"sheep": "sheep", "deer": "deer", "goose": "geese", "mouse": "mice"}[animals[1]]
        ),
        food=foods[0],
        food_b=foods[1],
        weather=rng.pick(lx.WEATHER),
        season=rng.pick(lx.SEASONS),
        age=in_words(rng.between(7, 40)),
        years=in_words(rng.between(3, 60)),
        miles=in_words(rng.between(3, 60)),
        number=str(number),
        small=in_words(small),
        smaller=in_words(small - 2),
        number_words=in_words(number),
        number_words_cap=in_words(number).capitalize(),
        day_b=rng.pick(lx.DAYS),
        part=rng.pick(["morning", "evening", "day"]),
        young=child.first,
        young_child="girl" if child.female else "boy",
    )
    ctx["advice"] = fill(rng, rng.pick(ADVICE), ctx)
    ctx["advice_cap"] = ctx["advice"][:1].upper() + ctx["advice"][1:]
    return ctx


def story(rng):
    """Four to six paragraphs about the same people."""
    ctx = context(rng)
    everyday = rng.shuffled(EVERYDAY)
    settings = rng.shuffled(SETTINGS)
    paragraphs = [
        [rng.pick(OPENINGS)] + settings[: rng.between(2, 3)],
        [PROMISE] + rng.sample(WANTS, 1) + everyday[:2] + settings[3:4],
        rng.sample(OBSTACLES, 3) + everyday[2:4],
        rng.sample(TURNS, rng.between(3, 4)) + everyday[4:5],
        everyday[5:7] + [rng.pick(ENDINGS)],
    ]
    if rng.chance(35):
        del paragraphs[2]
    return "\n\n".join(sentences(rng, p, ctx) for p in paragraphs)


LETTER_BODY = [
    "I am writing to you from {town_b}, where there has been {weather} for {small} days.",
    "The {spot_a} is just as you described it, and the people are {padj}.",
    "Yesterday I met {c_full}, {an:c_job}, who remembers you and sends you {an:other}.",
    "Please tell {b} that I have not forgotten the {thing_noun}; I will bring it on {day_b}.",
    "The {food} here is excellent, but the {food_b} is not as good as yours.",
    "I walked {miles} miles along the {river} and saw only one {animal}.",
    "{C} says that the {land_a} is beautiful in {season}, and I believe {c_him}.",
    "I need {number} coins for the journey home. Could you send them to {c} at the {spot_b}?",
    "Do you still have {thing_an}? I dreamed about it last night.",
    "As you always say: {advice}.",
    "I sleep badly, because {an:animal} cries all night near the {spot_a}.",
    "My room is {adj} and {adj}, with a view of the {land_a}.",
]


def letter(rng):
    """A letter home, with the same facts repeated in the answer."""
    ctx = context(rng)
    first = sentences(rng, rng.sample(LETTER_BODY, rng.between(5, 7)), ctx)
    date = fill(rng, "{town_b}, %d {month} %d" % (rng.between(1, 28), rng.between(1820, 1960)), ctx)
    text = f"{date}\n\nDear {ctx['b']},\n\n{first}\n\n" + fill(rng, "[Yours|With love|Your friend],\n{a}", ctx)
    answer = sentences(
        rng,
        rng.sample(
            [
                "Thank you for your letter from {town_b}.",
                "I was glad to hear about {c_full}; I had thought {c_he} was still in {town}.",
                "Keep the {thing_noun} dry, and come back before the {weather}.",
                "I have sent you {number} coins, care of the {spot_b}.",
                "We have eaten all the {food}, but there is still {food_b} for you.",
                "Do not cross the {land_a} alone.",
                "The {animal} misses you too.",
                'You wrote that I always say "{advice}". I do, and I am right.',
                "Is {c} still {an:c_job}?",
            ],
            rng.between(4, 6),
        ),
        ctx,
    )
    return f"{text}\n\nDear {ctx['a']},\n\n{answer}\n\n" + fill(rng, "[Yours|As ever|Your friend],\n{b}", ctx)


PASSAGES = [(story, 4), (letter, 1)]
