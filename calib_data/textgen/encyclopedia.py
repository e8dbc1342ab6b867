"""Reference-book paragraphs: each article states invented facts and comes back to them, with dates that add up."""

from . import lexicon as lx
from .core import capital, fill, in_words, join_and, sentences, with_commas


def town(rng):
    ctx = lx.common({})
    lx.cast(rng, ctx, "f", "m")
    founded = rng.between(1180, 1790)
    burned = founded + rng.between(40, 160)
    rail = max(1846, burned) + rng.between(1, 60)
    people, past = rng.between(900, 98000), 0
    past = people * rng.between(30, 85) // 100
    trades, crops = rng.sample(lx.TRADES, 2), rng.sample(lx.CROPS, 2)
    ctx.update(
        town=lx.place(rng),
        river=lx.river(rng),
        neighbour=lx.place(rng),
        region=capital(lx.coined(rng)),
        founded=founded,
        burned=burned,
        gap=in_words(burned - founded),
        rail=rail,
        people=with_commas(people),
        past=with_commas(past),
        t1=trades[0],
        t2=trades[1],
        c1=crops[0],
        c2=crops[1],
        height=rng.between(4, 1400),
        km=rng.between(4, 90),
        dir=rng.pick(["north", "south", "east", "west", "north-east", "south-west"]),
        season=rng.pick(lx.SEASONS),
        m1=rng.pick(lx.MONTHS),
        s1=rng.pick(lx.PLACES),
        s2=rng.pick(lx.PLACES),
        mat=rng.pick(["stone", "brick", "wood", "marble", "granite", "concrete"]),
        job=rng.pick(lx.JOBS),
    )
    first = [
        "{town} is [a town|a market town|a small city|a port] on the {river}, in the {region} region. It lies {height}"
        " metres above sea level, {km} kilometres {dir} of {neighbour}, and has {people} inhabitants."
    ]
    history = rng.sample(
        [
            "{town} was founded in {founded} by {f_full}, {an:job} from {neighbour}.",
            "In {burned}, {gap} years after its foundation, a fire destroyed the {s1} and most of the houses.",
            "The {s1} was rebuilt in {mat} and is today the oldest building of the town.",
            "The railway reached {town} in {rail} and linked it with {neighbour}, {km} kilometres away.",
            "The mayor in {rail}, {m_full}, [opposed|supported|paid for] the railway.",
            "The population grew from {past} in {rail} to {people} today.",
        ],
        rng.between(4, 6),
    )
    economy = rng.sample(
        [
            "The economy of {town} depends on {t1} and {t2}.",
            "{C1} and {c2} are grown on the banks of the {river}.",
            "Until {rail}, {t1} was the only trade; since then {t2} has become more important.",
            "Every {m1} a fair is held at the {s2}, where {c1} and {c2} are sold.",
            "Visitors come mostly in {season}, to see the {s1} and the {s2}.",
            "The {m_last} family still owns the largest company of the {region} region, which is known for its {t2}.",
        ],
        rng.between(3, 5),
    )
    close = rng.sample(
        [
            "A statue of {f_full} stands in front of the {s2}; it bears the year {founded}.",
            "The coat of arms of {town} shows {an:colour} {animal_any} above the {river}.",
            "A street in {neighbour} is named after {m_full}.",
        ],
        1,
    )
    return (
        fill(rng, "{town}", ctx)
        + "\n\n"
        + "\n\n".join(sentences(rng, p, ctx) for p in (first, history, economy, close))
    )


def scientist(rng):
    ctx = lx.common({})
    lx.cast(rng, ctx, "p", "q")
    born = rng.between(1610, 1930)
    age_degree, age_find, life = rng.between(20, 26), rng.between(28, 48), rng.between(55, 93)
    fields = rng.pick(
        [
            ("chemist", "chemistry", "mineral"),
            ("botanist", "botany", "plant"),
            ("astronomer", "astronomy", "comet"),
            ("geologist", "geology", "mineral"),
            ("physician", "medicine", "remedy"),
            ("mathematician", "mathematics", "proof"),
            ("physicist", "physics", "effect"),
            ("linguist", "linguistics", "script"),
            ("engineer", "engineering", "engine"),
        ]
    )
    ctx.update(
        field=fields[0],
        subject=fields[1],
        find=fields[2],
        thing=lx.coined(rng),
        born=born,
        degree=born + age_degree,
        found=born + age_find,
        age_find=in_words(age_find),
        died=born + life,
        life=in_words(life),
        home=lx.place(rng),
        univ=lx.place(rng),
        end=lx.place(rng),
        d1=rng.between(1, 28),
        mo=rng.pick(lx.MONTHS),
        job=rng.pick(lx.JOBS),
        dist=rng.pick(lx.ADJ_PERSON),
        later=rng.between(5, 30),
        book=rng.pick(["On the Nature of", "Letters on", "A Treatise on", "Notes on", "The History of"]),
    )
    parts = [
        [
            "{p_full} ({d1} {mo} {born} – {died}) was {an:field} from {home}. {P_he} is known for the {find}"
            " called {thing}."
        ],
        rng.sample(
            [
                "{P_his} [father|mother] was {an:job} in {home}.",
                "{P_he} studied {subject} in {univ}, where {p_he} received a degree in {degree}.",
                "{P_his} teacher in {univ} was {q_full}, who described {p_him} as {dist}.",
                "At first {p_he} wanted to become {an:job} like {p_his} [aunt|uncle], but {q_full} advised against it.",
            ],
            3,
        ),
        rng.sample(
            [
                "In {found}, at the age of {age_find}, {p_last} described {thing} for the first time.",
                "The discovery of {thing} was doubted for {later} years, until {q_full} confirmed it.",
                '{P_his} main work, "{book} {thing}", was printed in {univ} in {found}.',
                "{q_last} and {p_last} wrote {later} letters to each other about {thing}.",
                "With {material} and {material} {p_he} built an instrument to measure it.",
            ],
            rng.between(3, 4),
        ),
        [
            "{P_last} died in {end} in {died}, [aged {life}|at the age of {life}].",
            "[A school in {home}|The library of {univ}|A crater on the moon|A street in {end}] is named after {p_him}.",
        ],
    ]
    return "\n\n".join(sentences(rng, p, ctx) for p in parts)


def species(rng):
    ctx = lx.common({})
    lx.cast(rng, ctx, "d")
    low = rng.between(5, 60)
    high = low + rng.between(5, 60)
    name, months = lx.coined(rng), rng.between(0, 9)
    ctx.update(
        name=name,
        plant=rng.pick(["shrub", "herb", "climbing plant", "tree", "grass", "moss", "fern"]),
        low=low,
        high=high,
        land_a=rng.pick(lx.LAND),
        land_b=rng.pick(lx.LAND),
        region=capital(lx.coined(rng)),
        col=rng.pick(lx.COLOURS),
        col2=rng.pick(lx.COLOURS),
        petals=in_words(rng.between(3, 8)),
        m1=lx.MONTHS[months],
        m2=lx.MONTHS[months + 2],
        use=rng.pick(["tea", "dye", "soap", "rope", "paper", "ointment", "oil", "perfume"]),
        year=rng.between(1700, 1950),
        eater=rng.pick(lx.ANIMALS),
        latin=capital(name) + " " + rng.pick(["montana", "alba", "minor", "vulgaris", "rubra", "aquatica"]),
    )
    parts = [
        [
            'The {name} ("{latin}") is {an:plant} of the {region} {land_a}. It grows {low} to {high} centimetres'
            " [tall|high] and bears {col} flowers with {petals} petals."
        ],
        rng.sample(
            [
                "It flowers from {m1} to {m2}.",
                "The leaves are [narrow|round|pointed|hairy|smooth], {col2} above and {col} below.",
                "Unlike its relatives, the {name} also grows near [water|roads|walls|salt] and on the {land_b}.",
                "Plants taller than {high} centimetres are rare.",
                "The seeds are spread by the wind and by the {eater}.",
                "After {m2} the {col} petals fall, and {an:col2} fruit appears.",
            ],
            4,
        ),
        rng.sample(
            [
                "In {region} the {name} is used to make {use}.",
                "It was first described in {year} by {d_full}.",
                '{d_full} called it "{latin}" after a village where it was common.',
                "The {use} made from it is {col2} and smells of {food}.",
                "Since {year} it has been grown in gardens for its {col} flowers.",
                "The {eater} eats its leaves but not its flowers.",
            ],
            4,
        ),
    ]
    return "\n\n".join(sentences(rng, p, ctx) for p in parts)


def process(rng):
    """How something is made: ordered steps about one material."""
    ctx = lx.common({})
    lx.cast(rng, ctx, "i")
    hours, temp = rng.between(2, 48), rng.between(40, 1400)
    mats = rng.sample(lx.MATERIALS, 2)
    ctx.update(
        what=lx.coined(rng),
        m1=mats[0],
        m2=mats[1],
        hours=in_words(hours),
        temp=temp,
        hot=temp + rng.between(20, 200),
        twice=in_words(hours * 2),
        tool=rng.pick(["wheel", "press", "furnace", "sieve", "loom", "kiln", "mill", "vat"]),
        town=lx.place(rng),
        year=rng.between(1500, 1930),
        tool2=rng.pick(["hammer", "brush", "knife", "needle", "saw", "roller"]),
        colour_a=rng.pick(lx.COLOURS),
    )
    steps = [
        (
            "{What} is a material made of {m1} and {m2}. [It was first made|It is said to have been invented] in {town}"
            " in {year}."
        ),
        "First, the {m1} is [cleaned|washed|cut|ground] and put into {an:tool}, where it stays for {hours} hours.",
        "Next, it is heated to {temp} degrees; above {hot} degrees it would [burn|break|melt|turn {colour_a}].",
        (
            "Then the {m2} is added {adv}, and the mixture rests for another {hours} hours, so that the whole process"
            " takes at least {twice} hours."
        ),
        "Finally, the {what} is taken out of the {tool}, worked with {an:tool2} and left to cool.",
        "Good {what} is {colour_a}, {adj} and does not break when it is struck with {an:tool2}.",
        "Today {what} is made mostly in {town}, where the {tool} of {i_full}, built in {year}, can still be seen.",
    ]
    if rng.chance(50):
        steps.insert(
            6,
            "Cheap imitations use less {m2} and are heated to only {temp} degrees for a few minutes, which makes them"
            " {adj}.",
        )
    cut = rng.between(2, 4)
    return sentences(rng, steps[:cut], ctx) + "\n\n" + sentences(rng, steps[cut:], ctx)


def island(rng):
    """An overview with a list of parts that the text then describes in the same order."""
    ctx = lx.common({})
    villages = [lx.place(rng) for _ in range(3)]
    trades = rng.sample(lx.TRADES, 2)
    sizes = sorted((rng.between(60, 4000) for _ in range(3)), reverse=True)
    ctx.update(
        isle=lx.river(rng) + " Island",
        v1=villages[0],
        v2=villages[1],
        v3=villages[2],
        all=join_and(villages),
        s1=with_commas(sizes[0]),
        s2=with_commas(sizes[1]),
        s3=with_commas(sizes[2]),
        total=with_commas(sum(sizes)),
        area=rng.between(8, 900),
        peak="Mount " + lx.river(rng),
        h=rng.between(120, 2900),
        sea=capital(lx.coined(rng)) + " Sea",
        t1=trades[0],
        t2=trades[1],
        a=rng.pick(lx.ANIMALS),
    )
    return "\n\n".join(
        sentences(rng, p, ctx)
        for p in (
            [
                (
                    "{isle} is an island in the {sea}, {area} square kilometres in size. Its highest point is {peak},"
                    " at {h} metres."
                ),
                "There are three villages on {isle}: {all}. Together they have {total} inhabitants.",
            ],
            [
                (
                    "{v1} is the largest, with {s1} inhabitants. It has {an:spot}, {an:spot} and a harbour, and lives"
                    " from {t1}."
                ),
                "{v2}, with {s2} inhabitants, lies at the foot of {peak} and is known for its {t2} and its {food}.",
                (
                    "{v3} is the smallest of the three, with only {s3} inhabitants; it can be reached [on foot|by"
                    " boat|by a single road] from {v2}."
                ),
            ],
            [
                (
                    "There are more {a}s than people on {isle}, which is why the {a} appears on its flag."
                    if ctx["a"] not in ("sheep", "deer", "fox", "goose", "mouse")
                    else (
                        "The {a} appears on the flag of {isle}, and it is said that it lived there before the first"
                        " people."
                    )
                ),
                (
                    "From the top of {peak} one can see the whole {sea} [in good weather|on a clear day], and the roofs"
                    " of {v1} {h} metres below."
                ),
            ],
        )
    )


PASSAGES = [(town, 3), (scientist, 3), (species, 2), (process, 2), (island, 2)]
