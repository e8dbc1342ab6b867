"""Essays, diaries and fables: freely composed sentences over a large vocabulary, held together by a topic."""

from . import lexicon as lx
from .core import capital, fill, in_words, sentences

ABSTRACT = (
    "patience|memory|silence|courage|curiosity|friendship|solitude|luck|boredom|trust|jealousy|kindness|ambition|honesty|fear|hope|habit|"
    "attention|freedom|order|sleep|hunger|envy|pride|doubt|humour|loyalty|grief|wonder|thrift"
).split("|")
SUBJECTS = (
    "bridges|clocks|maps|gardens|letters|doors|lamps|ladders|boats|stairs|windows|wells|fences|bicycles|keys|shoes|pencils|umbrellas|"
    "libraries|trains|walls|roofs|ovens|candles|wheels|mirrors|bells|knots|spoons|hats"
).split("|")
VERB_MAKE = "built|repaired|painted|measured|described|invented|abandoned|sold|bought|hid|lost|found|cleaned|borrowed|drew|ruined|admired|carried|studied|guarded".split(
    "|"
)
VERB_SAY = "claimed|believed|wrote|insisted|suspected|remembered|noticed|feared|hoped|denied|explained|complained|discovered|dreamed".split(
    "|"
)
VERB_STATE = "teaches|demands|promises|rewards|hides|changes|destroys|protects|resembles|needs|produces|outlives|follows|precedes|forgives|improves".split(
    "|"
)
ADJ_ABSTRACT = (
    "rare|expensive|invisible|contagious|useful|dangerous|slow|ancient|fragile|necessary|childish|overrated|mysterious|honest|sweet|bitter|common|hard"
    " to learn|easy to lose".split("|")
)
PLACE_PP = (
    "in the kitchen|behind the church|under the stairs|beside the canal|on the roof|across the border|near the"
    " factory|at the crossroads|along the coast|inside the tunnel|above the valley|between two walls|outside the"
    " gates|against the wall|among the trees|at the edge of the village"
).split("|")
TIME_PP = (
    "last winter|for a whole year|every other week|once in a lifetime|during the war|before the railway came|in the"
    " year of the flood|after the harvest|on a rainy afternoon|within an hour|since childhood|until the very end|for no"
    " reason|twice a day"
).split("|")
MANNER = (
    "with great care|without a word|in a hurry|by mistake|out of pity|for money|with both hands|in secret|against all"
    " advice|with a smile|to everyone's surprise|like a thief".split("|")
)
RELATIVE = (
    "who had never seen the sea|who spoke three languages|who owned no shoes|whose brother was a sailor|who lived above"
    " the bakery|who collected stamps|who could not swim|who was always late|whose house had no door|who kept bees|who"
    " hated music|who slept until noon"
).split("|")


def essay_context(rng):
    ctx = lx.common({})
    lx.cast(rng, ctx, "p", "q")
    topic, rival = rng.sample(ABSTRACT, 2)
    sub, sub2 = rng.sample(SUBJECTS, 2)
    ctx.update(
        topic=topic,
        rival=rival,
        sub=sub,
        sub2=sub2,
        job=rng.pick(lx.JOBS),
        town=lx.place(rng),
        n=in_words(rng.between(2, 40)),
        vm=VERB_MAKE,
        vs=VERB_SAY,
        vst=VERB_STATE,
        aab=ADJ_ABSTRACT,
        at=rng.pick(ADJ_ABSTRACT),
        pp=PLACE_PP,
        tp=TIME_PP,
        mn=MANNER,
        rel=RELATIVE,
        abs=ABSTRACT,
        subj=SUBJECTS,
        an1=rng.pick(lx.ANIMALS),
    )
    return ctx


ESSAY_OPEN = [
    (
        "[Everybody praises|We all know|Little has been written about|My grandmother distrusted] {topic}, and [few|very"
        " few|only {job}s] understand it."
    ),
    "What {topic} is to people, {sub} are to {town}: {at}, and never [quite finished|where you need them].",
    "There are {n} kinds of {topic}, and the best of them is {at}.",
]
ESSAY_CLAIM = [
    "{Topic} {vst} {rival}, as {sub} {vm_pl} {sub2}.",
    "It is {aab}, and because it is {aab} it {vst} what {rival} {vst}.",
    "Without {rival}, {topic} would be {aab}; without {topic}, {rival} would be {aab}.",
    "[Some|Most] {subj} are made of {material}; {topic} is made of {rival} and {abs}.",
    "People who have {topic} seldom speak of it, while people who speak of {rival} seldom have {abs}.",
    "{An:colour} {an1} has more {topic} than {an:padj} {job_any}.",
    "One learns {topic} from {sub}, not from {subj} or {abs}.",
    "{Rival} is {aab}, {abs} is {aab}, but {topic} is {at}.",
]
ESSAY_STORY = [
    "[In {town}|Near {town}] there was {an:job}, {p_full}, {rel}, {who_also}.",
    "{p_full}, {an:padj} {job} {rel}, {vm} {an:object_any} {pp} {tp}.",
    "{Tp}, {p} {vm} the {adj} {subj} {pp}, {mn}, and {vs} that {topic} was {aab}.",
    "{An:padj} {job_any} {vs} that {p} {p_last} had {vm} the {sub} {mn}.",
    "{Q}, {rel}, {vs} the opposite: that {rival} {vst} {topic}.",
    '"Your {sub} are {adj}," {q} {vs_s} {tp}, "but your {topic} is {at}."',
    "They {vm} {an:object_any} {pp}, and {q} {vs} that it was {adj}.",
    "After {n} years {p} {vm} the {sub} {tp} and {vs} that nothing was more {adj}.",
]
ESSAY_END = [
    "So {topic} is {at} after all, and {p} of {town} was right about the {sub}.",
    "I have {n} {sub}, and not one of them has given me {topic}.",
    "Ask {q}, {rel2}: {topic} {vst} {rival}, and {sub} wait for nobody.",
    "That is all I know about {topic}; about {rival} I know even less.",
]


def essay(rng):
    ctx = essay_context(rng)
    ctx.update(
        vm_pl=["need", "outlive", "resemble", "replace", "protect"],
        who_also="[and|but] {vm} {subj} {tp}",
        vs_s=["said", "wrote", "shouted", "whispered"],
        rel2=rng.pick(RELATIVE),
    )
    return f"On {ctx['topic']} and {ctx['sub']}\n\n" + "\n\n".join(
        sentences(rng, part, ctx)
        for part in (
            [rng.pick(ESSAY_OPEN)] + rng.sample(ESSAY_CLAIM, 3),
            [ESSAY_STORY[0]] + rng.sample(ESSAY_STORY[1:], rng.between(3, 5)),
            rng.sample(ESSAY_CLAIM, 2) + [rng.pick(ESSAY_END)],
        )
    )


DIARY = [
    "{Weather_any} [all day|until noon|again].",
    "{P} {vm} the {obj} {pp}.",
    "I {vm} {an:object_any} {mn}.",
    "{Q} came {mn} and brought {food} and {an:object_any}.",
    "Bought {food}, {food} and {n} {sub}.",
    "{Q} {vs} that {p} has no {topic}.",
    "Saw {an:animal_any} {pp}.",
    "Slept badly; dreamed of {sub} and of {town}.",
    "The {spot} was [closed|full|empty|on fire].",
    "A letter from {town}, at last.",
    "No news of the {obj}.",
    "{P} and {q} quarrelled about the {obj} {pp}.",
    "Worked on the {sub} {tp}.",
    "I need more {topic} and less {rival}.",
    "The {an1} is {better} today.",
    "Nothing happened.",
    "{P} {vs} it was my fault.",
]


def diary(rng):
    ctx = essay_context(rng)
    obj = rng.pick(lx.OBJECTS)
    ctx.update(obj=obj, better=["better", "worse", "asleep", "gone", "back"])
    day, month, weekday = rng.between(1, 20), rng.pick(lx.MONTHS), rng.below(7)
    out = []
    for _ in range(rng.between(4, 6)):
        out.append(f"{lx.DAYS[weekday]}, {day} {month}. " + sentences(rng, rng.sample(DIARY, rng.between(3, 6)), ctx))
        step = rng.between(1, 2)
        day, weekday = day + step, (weekday + step) % 7
    return "\n\n".join(out)


def fable(rng):
    a, b = rng.sample([x for x in lx.ANIMALS if x not in ("sheep", "deer")], 2)
    ctx = essay_context(rng)
    ctx.update(
        a=a,
        b=b,
        get=rng.pick(lx.FOODS),
        item=rng.pick(lx.OBJECTS),
        land1=rng.pick(lx.LAND),
        w=rng.pick(lx.WEATHER),
        num=in_words(rng.between(3, 12)),
        trait=rng.pick(lx.ADJ_PERSON),
        trait2=rng.pick(lx.ADJ_PERSON),
    )
    ctx["moral"] = fill(
        rng,
        "[{Topic} is worth more than {get}|He who has {topic} needs no {get}|{Rival} costs more than {topic}|{An:trait}"
        " friend is better than {an:trait2} one]",
        ctx,
    )
    start = [
        (
            "{An:a} and {an:b} [lived|met] in the {land1} [near {town}|in the year of the great {w}]. The {a} was"
            " {trait}, the {b} {trait2}."
        ),
        "Once, when the {w} had lasted {num} days, {an:trait} {a} met {an:trait2} {b} in the {land1}.",
    ]
    talk = rng.sample(
        [
            '"Give me your {get}," said the {b}, "and I will give you my {item}."',
            '"What is that?" asked the {a}. "{An:item}," said the {b}. "It is worth {num} [bags|baskets] of {get}."',
            '"I have {num} [brothers|children]," said the {a} {adv}, "and no {get}."',
            "The {b} laughed {adv}, for it had {vm} the {item} {pp} {mn}.",
            "The {a} {vs} that the {w} would soon be over.",
            '"You have no {topic}," said the {b}. "And you have no {get}," said the {a}.',
        ],
        4,
    )
    turn = rng.sample(
        [
            "But in the night came the {w}, and the {item} was gone.",
            "The next morning the {b} was hungry, and the {item} could not be eaten.",
            "After {num} days the {b} came back without the {item}.",
            "So the {a} shared the {get} with the {b}, [half and half|{mn}|and kept nothing for itself].",
            "They sat together in the {land1} and ate {get}.",
            "{An:colour} {animal_any} had watched them from the {land1} and {vs} that both were right.",
        ],
        3,
    )
    return (
        fill(rng, "The {a} and the {b}", ctx)
        + "\n\n"
        + sentences(rng, [rng.pick(start)] + talk, ctx)
        + "\n\n"
        + sentences(rng, turn, ctx)
        + f"\n\nMoral: {ctx['moral']}."
    )


PASSAGES = [(essay, 3), (diary, 3), (fable, 3)]
