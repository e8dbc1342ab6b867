"""Conversations: shop, appointment, lesson, directions, interview; what was said once is asked again later."""

from . import lexicon as lx
from .core import fill, in_words


def lines(rng, ctx, pairs):
    return "\n".join(f"{ctx[who]}: {fill(rng, text, ctx)}" for who, text in pairs)


def shop(rng):
    ctx = lx.common({})
    lx.cast(rng, ctx, "x", "y")
    goods = rng.sample(lx.FOODS, 3)
    prices = [rng.between(1, 12) for _ in goods]
    total, note = sum(prices), 20 if sum(prices) <= 20 else 50
    ctx.update(
        g1=goods[0],
        g2=goods[1],
        g3=goods[2],
        p1=prices[0],
        p2=prices[1],
        p3=prices[2],
        t=total,
        two=prices[0] + prices[1],
        note=note,
        change=note - total,
        c=rng.pick(lx.COLOURS),
        town=lx.place(rng),
    )
    talk = [
        ("x", "Good [morning|afternoon|evening], {y_title}. What can I do for you?"),
        ("y", "[I need some {g1}, please.|I would like some {g1}.|Do you have any {g1}?|{G1}, please.]"),
        (
            "x",
            (
                "Of course. The {g1} [is|comes] from {town}. That is {p1} euros."
                if not goods[0].endswith("s")
                else "Of course. The {g1} come from {town}. That is {p1} euros."
            ),
        ),
        ("y", "And the {g2}? How much?"),
        ("x", "{p2} euros. So {p1} and {p2} makes {two} euros. Anything else?"),
        ("y", "[Yes, some {g3} too.|Let me think. Some {g3}, perhaps.]"),
        ("x", "The {g3}, {p3} euros. Altogether {t} euros, please."),
        ("y", "Here is a note of {note}."),
        ("x", "Thank you. {note} minus {t}, here are {change} euros back."),
        ("y", "[Is the {g1} really from {town}?|What did you say the {g2} cost?|Could I have {an:c} bag?]"),
    ]
    end = {
        "I": ("x", "Yes, from {town}, like everything we sell. Goodbye, {y_title}."),
        "W": ("x", "{p2} euros, {y_title}. The {g3}, {p3}."),
        "C": ("x", "{An:c} one? Here you are. Goodbye, {y_title}."),
    }
    picked = fill(rng, talk[-1][1], ctx)
    return lines(rng, ctx, talk[:-1]) + f"\n{ctx['y']}: {picked}\n" + lines(rng, ctx, [end[picked[0]]])


def appointment(rng):
    ctx = lx.common({})
    lx.cast(rng, ctx, "x", "y", "z")
    days = rng.sample(lx.DAYS, 3)
    ctx.update(
        d1=days[0],
        d2=days[1],
        d3=days[2],
        h1=rng.between(1, 6),
        h2=rng.between(7, 11),
        s1=rng.pick(lx.PLACES),
        w=rng.pick(lx.WEATHER),
        job=rng.pick(lx.JOBS),
        o=rng.pick(lx.OBJECTS),
        tel=f"{rng.between(200, 999)} {rng.between(1000, 9999)}",
        f=rng.pick(lx.FOODS),
    )
    return lines(
        rng,
        ctx,
        [
            ("x", "Hello {y}, this is {x}. [Are you free|Do you have time] on {d1}?"),
            ("y", "On {d1}? No, I am [working|away|seeing {z}] [all day|until late]."),
            ("x", "And on {d2}?"),
            ("y", "{d2} is [better|fine|possible], but only after {h1} o'clock."),
            ("x", "Then on {d2} at {h1}, in front of the {s1}?"),
            ("y", "[Good|All right|Agreed]. {d2}, {h1} o'clock, at the {s1}. Shall I bring anything?"),
            ("x", "[Bring|Please bring] the {o}, and some {f}. {z} is coming too."),
            ("y", "{z} {z_last}, the {job}?"),
            ("x", "Yes. {Z_he} [has|wants] to see the {o}. [If there is {w}|In case of {w}], we meet on {d3} instead."),
            (
                "y",
                (
                    "[Wait, I am writing it down.|Let me repeat that.] {d2} at {h1}, the {s1}; with {w}, {d3}. And your"
                    " number?"
                ),
            ),
            ("x", "{tel}."),
            ("y", "{tel}. [Thank you|Good], {x}. See you on {d2}."),
            ("x", "See you on {d2}, {y}. And do not forget the {f}!"),
        ],
    )


SCHOOL_FACTS = [
    ("How many legs does a spider have?", "Eight. An insect has six."),
    ("What do bees make?", "Honey and wax."),
    ("At what temperature does water boil?", "At one hundred degrees Celsius, at sea level."),
    ("Why is the sky dark at night?", "Because the sun is on the other side of the Earth."),
    ("What is ice?", "Frozen water."),
    ("How many days are there in a week?", "Seven."),
    ("What does a compass needle point to?", "To the magnetic north."),
    ("What is the opposite of heavy?", "Light."),
    ("Which month comes after June?", "July."),
    ("How many sides does a hexagon have?", "Six. A pentagon has five."),
    ("What is glass made of?", "Mostly of sand."),
    ("Where does the sun rise?", "In the east."),
    ("What do plants need to grow?", "Water, light and air."),
    ("How many minutes are there in two hours?", "A hundred and twenty."),
    ("What is steel?", "Iron with a little carbon."),
    ("Which is larger, a half or a third?", "A half."),
    ("What is the plural of mouse?", "Mice."),
    ("What is a young horse called?", "A foal."),
    ("What is a young sheep called?", "A lamb."),
    ("Which planet is nearest to the sun?", "Mercury."),
    ("What is the square root of eighty-one?", "Nine."),
    ("What is a triangle with three equal sides called?", "Equilateral."),
]


def lesson(rng):
    ctx = lx.common({})
    lx.cast(rng, ctx, "x", "y", "z")
    out = [
        f"{ctx['x_title']}: "
        + fill(rng, "Good morning, {y} and {z}. [Are you ready?|Let us begin.|Please sit down.]", ctx)
    ]
    facts, marks = rng.sample(SCHOOL_FACTS, rng.between(5, 7)), {"y": 0, "z": 0}
    for question, answer in facts:
        who, other = rng.pick([("y", "z"), ("z", "y")])
        out.append(f"{ctx['x_title']}: {ctx[who]}, {question[0].lower() + question[1:]}")
        if rng.chance(30):
            out.append(f"{ctx[who]}: " + fill(rng, "I [do not know|have forgotten], {x_title}.", ctx))
            out.append(f"{ctx['x_title']}: {ctx[other]}?")
            who = other
        marks[who] += 1
        out.append(f"{ctx[who]}: {answer}")
        out.append(f"{ctx['x_title']}: " + fill(rng, "[Good.|That is right.|Correct, {%s}.|Very good.]" % who, ctx))
    out.append(
        f"{ctx['x_title']}: That makes {in_words(marks['y'])} right answers for {ctx['y']} and {in_words(marks['z'])}"
        f" for {ctx['z']}, {in_words(len(facts))} in all."
    )
    return "\n".join(out)


def directions(rng):
    ctx = lx.common({})
    lx.cast(rng, ctx, "x", "y")
    s = rng.sample(lx.PLACES, 4)
    turn = [rng.pick(["left", "right"]) for _ in range(2)]
    ctx.update(
        s1=s[0],
        s2=s[1],
        s3=s[2],
        s4=s[3],
        t1=turn[0],
        t2=turn[1],
        n=in_words(rng.between(2, 40)),
        st=lx.surname(rng) + " Street",
        town=lx.place(rng),
        c=rng.pick(lx.COLOURS),
    )
    return lines(
        rng,
        ctx,
        [
            ("x", "Excuse me, how do I get to the {s1}?"),
            ("y", "[You are not from {town}, are you?|To the {s1}? That is not far.] Go straight on to the {s2}."),
            ("x", "To the {s2}. And then?"),
            ("y", "At the {s2} turn {t1} into {st}. [Walk|Follow {st}] for {n} minutes, until you see the {s3}."),
            ("x", "{T1} into {st}, {n} minutes, the {s3}."),
            (
                "y",
                (
                    "Exactly. There you turn {t2}. The {s1} is [the {c} house|on the corner] between the {s3} and the"
                    " {s4}."
                ),
            ),
            ("x", "So first {t1} at the {s2}, then {t2} at the {s3}?"),
            ("y", "Yes. If you come to the {s4}, you have gone too far."),
            ("x", "[Thank you very much.|You are very kind.] Is {st} [long|safe|busy]?"),
            ("y", "It is {n} minutes long, [as I said|no more]. [Good luck!|Enjoy {town}!]"),
        ],
    )


def interview(rng):
    ctx = lx.common({})
    lx.cast(rng, ctx, "y")
    born = rng.between(1930, 1995)
    start = born + rng.between(14, 30)
    ctx.update(
        job=rng.pick(lx.JOBS),
        born=born,
        start=start,
        age=in_words(start - born),
        town=lx.place(rng),
        o=rng.pick(lx.OBJECTS),
        two=lx.place(rng),
        n=in_words(rng.between(3, 60)),
        p=rng.pick(lx.ADJ_PERSON),
        mat=rng.pick(lx.MATERIALS),
        spot_1=rng.pick(lx.PLACES),
        a=rng.pick(lx.ANIMALS),
        paper="The " + lx.place(rng) + " " + rng.pick(["Post", "Herald", "Mirror", "Times"]),
    )
    body = [
        ("Q", "{y_full}, you have been {an:job} since {start}. How did it begin?"),
        (
            "A",
            (
                "I was {age} years old. I was born in {town} in {born}, near the {spot_1}, and my [father|mother|aunt]"
                " knew {an:p} {job} [there|in {two}]."
            ),
        ),
        ("Q", "What was the first thing you made or did?"),
        (
            "A",
            (
                "[It had to do with {an:a}.|I carried {mat} for {n} weeks.|I repaired my aunt's {o}.] I was [terrible"
                " at it|proud of it]."
            ),
        ),
        ("Q", "Do you still live in {town}?"),
        ("A", "No, I left {town} in {start}. Now I live in {two}, with {n} [books|plants|clocks] and {an:a}."),
        ("Q", "What should {an:job} be like?"),
        ("A", "{P}. [Nothing else matters.|And never in a hurry.|And good with {mat}.]"),
        ("Q", "And what will you do next?"),
        (
            "A",
            (
                "[Go back to {town}|Write a book about {mat}|Teach a young {job}|Sell the {o}], [I hope|perhaps|if they"
                " let me]."
            ),
        ),
    ]
    keep = body[:4] + [x for i in rng.sample([4, 6, 8], 2) for x in body[i : i + 2]]
    return (
        fill(rng, "{paper} talks to {y_full}, {job}", ctx)
        + "\n\n"
        + "\n\n".join(f"{w}: {fill(rng, t, ctx)}" for w, t in keep)
    )


PASSAGES = [(shop, 2), (appointment, 2), (lesson, 2), (directions, 1), (interview, 2)]
