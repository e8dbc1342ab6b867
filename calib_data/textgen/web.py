"""Web-like text: recipes, how-to guides, questions, product pages and news, some of it as HTML or markdown."""

from . import lexicon as lx
from .core import capital, fill, in_words, join_and, sentences

ING = [
    ("flour", "g", 100, 600),
    ("sugar", "g", 20, 250),
    ("butter", "g", 30, 250),
    ("milk", "ml", 100, 750),
    ("water", "ml", 100, 900),
    ("olive oil", "ml", 10, 90),
    ("carrots", "g", 100, 500),
    ("onions", "g", 80, 300),
    ("lentils", "g", 150, 500),
    ("rice", "g", 150, 450),
    ("apples", "g", 200, 900),
    ("walnuts", "g", 30, 200),
    ("mushrooms", "g", 100, 500),
    ("cheese", "g", 50, 300),
    ("honey", "g", 15, 120),
    ("potatoes", "g", 200, 900),
    ("tomatoes", "g", 150, 700),
    ("raisins", "g", 30, 150),
    ("oats", "g", 80, 300),
    ("cabbage", "g", 200, 800),
]
DISHES = "soup pie cake bread stew salad pudding gratin porridge tart".split()


def markdown_list(items, mark="-"):
    return "\n".join(f"{i + 1}. {x}" if mark == "1" else f"{mark} {x}" for i, x in enumerate(items))


def html_list(items, tag="ul"):
    return f"<{tag}>\n" + "\n".join(f"  <li>{x}</li>" for x in items) + f"\n</{tag}>"


def recipe(rng):
    chosen = rng.sample(ING, rng.between(4, 6))
    amounts = [(n, rng.between(lo // 5, hi // 5) * 5, u) for n, u, lo, hi in chosen]
    names = [n for n, _, _ in amounts]
    dish = (
        {"potatoes": "potato", "tomatoes": "tomato"}.get(names[0], names[0].rstrip("s")).capitalize()
        + " "
        + rng.pick(DISHES)
    )
    serves, minutes, degrees = rng.between(2, 8), rng.between(2, 16) * 5, rng.between(15, 24) * 10
    ctx = lx.common(
        dict(
            a=names[0],
            b=names[1],
            c=names[2],
            rest=join_and(names[3:]),
            dish=dish.lower(),
            minutes=minutes,
            degrees=degrees,
            n=in_words(serves),
            half=in_words(max(1, serves // 2)),
            place=lx.place(rng),
        )
    )
    steps = [
        fill(rng, s, ctx)
        for s in [
            (
                "[Wash|Weigh|Prepare] the {a} and put [it|them] into a large bowl."
                if names[0].endswith("s")
                else "Put the {a} into a large bowl."
            ),
            "[Add|Stir in] the {b} and the {c} and mix [well|gently|for a few minutes].",
            "Add the {rest} [and a pinch of salt|a little at a time|and leave for ten minutes].",
            "[Bake|Cook] at {degrees} °C for {minutes} minutes.",
            "Let the {dish} cool [a little|completely] and serve [with bread|warm|cold|the next day].",
        ]
    ]
    listed = [f"{q} {u} {n}" for n, q, u in amounts]
    intro = fill(
        rng,
        "This {dish} comes from {place} and serves {n} people. [You need {minutes} minutes and an oven.|It takes"
        " {minutes} minutes.] [The secret is the {c}.|Do not forget the {b}.|For {half}, use half of everything.]",
        ctx,
    )
    if rng.chance(40):
        return (
            f"<h1>{dish}</h1>\n<p>{intro}</p>\n<h2>Ingredients</h2>\n{html_list(listed)}\n<h2>Method</h2>\n{html_list(steps, 'ol')}"
        )
    return (
        f"# {dish}\n\n{intro}\n\n## Ingredients\n\n{markdown_list(listed)}\n\n## Method\n\n{markdown_list(steps, '1')}"
    )


TASKS = [
    ("clean", "a soft cloth", "warm water", "dry"),
    ("repair", "a small screwdriver", "glue", "firm"),
    ("pack", "a strong box", "old newspaper", "safe"),
    ("paint", "a flat brush", "two coats of paint", "even"),
    ("polish", "a woollen cloth", "a little wax", "bright"),
    ("photograph", "a white sheet", "daylight", "sharp"),
    ("measure", "a tape measure", "a pencil", "exact"),
]


def how_to(rng):
    verb, tool, stuff, state = rng.pick(TASKS)
    thing = rng.pick([o for o in lx.OBJECTS if " of " not in o]).split(" ", 1)[-1]
    ctx = lx.common(
        dict(
            verb=verb,
            thing=thing,
            tool=tool,
            stuff=stuff,
            state=state,
            n=in_words(rng.between(2, 9)),
            mat=rng.pick(lx.MATERIALS),
        )
    )
    steps = [
        fill(rng, s, ctx)
        for s in [
            "[Put|Place] the {thing} on a [clean|flat|dry] table.",
            "[Look at|Check] it from all sides. If the {mat} is [broken|cracked|wet], stop here.",
            (
                "[Take|Use] {tool} and {stuff}; [work|move] [slowly|gently|patiently|carefully|quickly], from [left to"
                " right|the middle to the edge|top to bottom]."
            ),
            "[Wait|Leave it for] {n} [minutes|hours], until [everything|the {mat}] is {state}.",
            "Repeat step 3 if the {thing} is not yet {state}.",
        ]
    ]
    title = f"How to {verb} {fill(rng, '{an:thing}', ctx)}"
    intro = sentences(
        rng,
        [
            (
                "[Many people|Most beginners] [are afraid|do not know how] to {verb} {an:thing}, but it is [easy|not"
                " difficult|a matter of patience]."
            ),
            "You need {tool}, {stuff} and about {n} [minutes|hours].",
        ],
        ctx,
    )
    tips = [
        fill(rng, s, ctx)
        for s in rng.sample(
            [
                "Never use {stuff} on [hot|painted] {mat}.",
                "Keep {tool} in a dry place.",
                "{An:thing} made of {mat} needs more time.",
                "Ask somebody to hold the {thing}.",
                "If it takes longer than {n} hours, you use too much force.",
            ],
            3,
        )
    ]
    return f"## {title}\n\n{intro}\n\n{markdown_list(steps, '1')}\n\n**Tips**\n\n{markdown_list(tips, '*')}"


def faq(rng):
    ctx = lx.common(
        dict(
            shop=lx.surname(rng)
            + " "
            + rng.pick(["Books", "Garden", "Bikes", "Tools", "Tea", "Museum", "Library", "Travel", "Ferries"]),
            town=lx.place(rng),
            days=in_words(rng.between(2, 14)),
            open=rng.between(7, 10),
            close=rng.between(5, 9),
            price=f"{rng.between(3, 40)}.{rng.between(0, 9)}0",
            off=rng.pick(lx.DAYS),
            free=rng.between(3, 12) * 10,
            mail=lx.coined(rng),
            age=rng.between(4, 16),
        )
    )
    pairs = rng.sample(
        [
            ("When are you open?", "{shop} is open from {open} a.m. to {close} p.m. every day except {off}."),
            ("Where can I find you?", "We are in {town}, [opposite|behind|next to] the {spot}."),
            ("How much is shipping?", "Shipping costs {price} euros. Orders over {free} euros are free."),
            (
                "How long does it take?",
                "Usually {days} days. If nothing has arrived after {days} days, write to info@{mail}.example.",
            ),
            (
                "Can I send something back?",
                (
                    "Yes, within {days} days, if it is [unused|complete|in its box]. You pay the {price} euros for"
                    " shipping."
                ),
            ),
            ("Do children pay?", "Children under {age} do not pay anything; everybody else pays {price} euros."),
            ("Are dogs allowed?", "[Yes, if they are quiet.|No, only guide dogs.|Only in the {spot}.]"),
            ("Are you open on {off}?", "No. On {off} we are closed, but you can write to info@{mail}.example."),
            ("Do I need to book?", "[Yes, at least {days} days before.|No, just come.|Only in {season_any}.]"),
            ("Is there a discount?", "If you spend more than {free} euros, or if you are under {age}, yes."),
        ],
        rng.between(5, 7),
    )
    style = rng.below(3)
    rows = [(fill(rng, q, ctx), fill(rng, a, ctx)) for q, a in pairs]
    head = fill(rng, "{shop}: frequently asked questions", ctx)
    if style == 0:
        return f"<h1>{head}</h1>\n<dl>\n" + "\n".join(f"  <dt>{q}</dt>\n  <dd>{a}</dd>" for q, a in rows) + "\n</dl>"
    if style == 1:
        return f"# {head}\n\n" + "\n\n".join(f"**{q}**\n{a}" for q, a in rows)
    return head + "\n\n" + "\n\n".join(f"Q: {q}\nA: {a}" for q, a in rows)


def product(rng):
    thing = rng.pick([o for o in lx.OBJECTS if " of " not in o])
    brand = lx.surname(rng)
    price = rng.between(9, 480)
    w, h, kg = rng.between(5, 90), rng.between(5, 90), rng.between(1, 90)
    ctx = lx.common(
        dict(
            thing=thing,
            noun=thing.split(" ", 1)[-1],
            brand=brand,
            model=f"{capital(lx.coined(rng))} {rng.between(1, 9)}00",
            price=price,
            w=w,
            h=h,
            kg=f"{kg / 10:.1f}",
            col=rng.pick(lx.COLOURS),
            mat=rng.pick(lx.MATERIALS),
            years=in_words(rng.between(2, 10)),
            old=price + rng.between(5, 90),
            stars=rng.between(2, 5),
        )
    )
    lx.cast(rng, ctx, "r", "s")
    body = sentences(
        rng,
        [
            "The {brand} {model} is {an:adj} {noun} made of {mat}.",
            "It is {w} cm wide, {h} cm high and weighs {kg} kg.",
            "[It now costs {price} euros instead of {old}.|Only {price} euros, shipping included.]",
            "We give a guarantee of {years} years.",
        ],
        ctx,
    )
    good = [
        "I have used the {model} for {years} months and I am [very happy|quite content] with it.",
        "The {mat} feels {adj}, the {col} looks better than in the picture.",
        "Worth every cent of the {price} euros.",
        "{brand} answered my question within a day.",
    ]
    bad = [
        "After {years} weeks the {noun} was [broken|bent|useless].",
        "It weighs more than {kg} kg, I am sure.",
        "The {col} paint came off {time}.",
        "For {price} euros I had expected real {mat}.",
        "I have sent it back to {brand}.",
    ]
    stars = int(ctx["stars"])
    other = 5 if stars < 4 else 1
    one = sentences(rng, rng.sample(good if stars >= 4 else bad, 3), ctx)
    two = sentences(rng, rng.sample(good if other >= 4 else bad, 3), ctx)
    spec = [
        f"Width: {w} cm",
        f"Height: {h} cm",
        f"Weight: {ctx['kg']} kg",
        f"Material: {ctx['mat']}",
        f"Colour: {ctx['col']}",
        f"Price: {price} EUR",
    ]
    if rng.chance(40):
        return (
            f'<div class="product" id="{ctx["model"].lower().replace(" ", "-")}">\n  <h2>{brand} {ctx["model"]}</h2>\n '
            f" <p>{body}</p>\n  <ul>\n"
            + "\n".join(f"    <li>{s}</li>" for s in spec)
            + f'\n  </ul>\n  <blockquote>{one} <cite>{ctx["r"]}</cite></blockquote>\n</div>'
        )
    return (
        f"### {brand} {ctx['model']}\n\n{body}\n\n{markdown_list(spec)}\n\n#### Reviews\n\n{ctx['r']} ({stars}/5):"
        f" {one}\n\n{ctx['s']} ({other}/5): {two}"
    )


def news(rng):
    ctx = lx.common({})
    lx.cast(rng, ctx, "m", "w")
    before, cost = rng.between(12, 300), rng.between(2, 60)
    spot = rng.pick(lx.PLACES)
    yes = rng.between(51, 93)
    ctx.update(
        town=lx.place(rng),
        next=lx.place(rng),
        thing=spot,
        people=before,
        more=before + rng.between(5, 100),
        cost=f"{cost}.{rng.between(1, 9)}",
        d=rng.pick(lx.DAYS),
        years=in_words(rng.between(2, 20)),
        yes=yes,
        no=100 - yes,
        who=rng.pick(lx.JOBS),
        weather=rng.pick(["rain", "snow", "fog", "frost", "hail", "wind", "ice"]),
        year=rng.between(1972, 2024),
    )
    kind = rng.pick(
        [
            [
                (
                    "{town} – After {years} years of discussion, {town} will get a new {thing}. On {d} the council"
                    " voted for the plan with {yes} to {no} per cent."
                ),
                '"The old {thing} was built for {people} people, and now there are {more}," said mayor {m_full}.',
                'It will cost {cost} million euros. "Far too much," said {w_full}, {an:who} who voted against it.',
                (
                    "{M_last} promised that the {thing} would be finished in {years} years. The last one, of {year},"
                    " took twice as long."
                ),
                'In {next}, a similar {thing} was never finished. "We are not {next}," said {m_last}.',
            ],
            [
                (
                    "{town} – {Weather} closed the road between {town} and {next} on {d}. About {people} people"
                    " had to spend the night in the {thing}."
                ),
                (
                    'Among them was {w_full}, {an:who} from {next}. "There was enough {food}, and somebody had'
                    ' {an:object_any}," {w_he} said.'
                ),
                "The damage is put at {cost} million euros, said {m_full} of the town council.",
                "It was the worst {weather} since {year}, when {more} houses were damaged.",
                (
                    "{M_last} thanked the {people} people in the {thing} for their patience. The road will be open"
                    " again in {years} days."
                ),
            ],
            [
                (
                    "{town} – {An:who} from {town} has found {an:object_any} that was lost in {year}. {W_full} was"
                    " working near the {thing} on {d} when {w_he} saw something {colour} in the ground."
                ),
                '"At first I thought it was {material}," said {w_last}. "Then I saw the name."',
                "It is worth about {people} euros, according to {m_full} of the museum in {next}.",
                "{M_last} would like to show it there for {years} weeks. More than {more} visitors are expected.",
                '{W_last} has other plans. "It stays in {town}," {w_he} said.',
            ],
        ]
    )
    head = fill(
        rng,
        '[New {thing} for {town}|{town} and the {thing}|A {d} in {town}|{m_last}: "We are not {next}"|What happened at'
        " the {thing}]",
        ctx,
    )
    return capital(head) + "\n\n" + sentences(rng, kind[:2], ctx) + "\n\n" + sentences(rng, kind[2:], ctx)


PASSAGES = [(recipe, 2), (how_to, 2), (faq, 2), (product, 2), (news, 3)]
