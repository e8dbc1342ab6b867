"""Study notes about the real world: sentences written for this file, chosen and ordered anew in each passage."""

from . import lexicon as lx
from .core import fill

TOPICS = {
    "Water": (
        """Water freezes at zero degrees Celsius and, unlike most liquids, expands as it does so.
Because ice is less dense than liquid water, it floats, and lakes freeze from the surface down.
A molecule of water consists of two hydrogen atoms bound to one oxygen atom.
Evaporation, condensation and precipitation move water between oceans, atmosphere and land.
Groundwater fills the pores of sand and rock, and feeds springs and wells.
Dissolved calcium and magnesium make water hard and leave limescale in kettles.
Surface tension lets small insects walk across a pond without sinking.
About ninety-seven per cent of the water on Earth is salty.
Water dissolves salts and sugars easily, but hardly mixes with oils."""
    ),
    "The human body": (
        """The heart pumps blood through arteries, and veins carry it back.
Red blood cells contain haemoglobin, an iron-rich protein that binds oxygen.
The lungs exchange carbon dioxide for oxygen across very thin membranes.
Muscles can only pull; that is why they are arranged in opposing pairs.
The liver stores energy, produces bile and breaks down toxins.
Nerve cells communicate by electrical impulses and chemical messengers.
Vaccines train the immune system to recognise a pathogen before an infection.
The kidneys filter the blood and regulate the balance of salt and water.
Bones are living tissue, constantly dissolved and rebuilt.
The retina at the back of the eye converts light into nerve signals."""
    ),
    "Computers": (
        """A byte holds eight bits and can represent 256 different values.
A compiler translates source code into machine instructions before the program runs.
Floating-point numbers approximate real numbers with a significand and an exponent.
A cache keeps recently used data close to the processor, because main memory is slow by comparison.
Binary search needs about twenty comparisons to find an entry among a million sorted ones.
Encryption turns readable data into ciphertext that only the holder of the key can decode.
An operating system shares the processor, the memory and the devices among running programs.
A hash function maps data of any size to a number of fixed size.
Version control records who changed which line, when, and preferably why.
Quantization stores the weights of a neural network with fewer bits and accepts a small error."""
    ),
    "The solar system": (
        """The Earth orbits the Sun once a year and rotates on its axis once a day.
The tilt of the axis, not the distance from the Sun, causes the seasons.
Jupiter is more massive than all the other planets together.
The Moon always shows us nearly the same face, since its rotation matches its orbit.
Comets are made of ice and dust and grow tails when they approach the Sun.
Light from the Sun takes a little more than eight minutes to reach us.
Saturn's rings consist of countless pieces of ice, most of them smaller than a house.
A solar eclipse happens when the Moon passes exactly between the Sun and the Earth.
Mars appears red because its surface contains iron oxide."""
    ),
    "Money and trade": (
        """Inflation means that prices rise and that the same sum buys less.
A bank pays interest on deposits and demands a higher rate for loans.
Insurance spreads the risk of a rare but expensive event over many contributors.
A budget compares expected income with planned expenditure.
Tariffs are taxes on imported goods; they protect some producers and burden most consumers.
A company divides its ownership into shares, and shareholders may receive a dividend.
When demand exceeds supply, prices tend to rise.
Compound interest lets a small debt grow surprisingly large.
Barter requires that each side wants precisely what the other offers; money removes that coincidence."""
    ),
    "Law and government": (
        """A constitution defines the powers of the state and limits them.
Parliaments pass laws, governments execute them and courts interpret them.
Nobody may be a judge in his or her own case.
A contract is an agreement that a court can enforce.
The accused is presumed innocent until proven guilty.
In a referendum citizens vote directly on a question instead of electing representatives.
A patent grants an inventor exclusive rights for a limited period in exchange for publication.
Municipalities are responsible for local matters such as waste, parks and primary schools.
Evidence obtained illegally is often inadmissible."""
    ),
    "Plants": (
        """Photosynthesis uses sunlight to build sugar from carbon dioxide and water.
Roots absorb water and minerals and anchor the plant in the soil.
Deciduous trees drop their leaves before winter to save water.
Pollen is carried from flower to flower by insects, birds or the wind.
A tree adds one ring each year; narrow rings reveal dry summers.
Legumes such as peas and clover enrich the soil with nitrogen.
Mosses have no true roots and reproduce by spores instead of seeds.
Potatoes are tubers, carrots are roots and onions are bulbs.
Chlorophyll absorbs red and blue light and reflects green."""
    ),
    "Weather and climate": (
        """Warm air can hold more moisture than cold air.
Wind blows from areas of high pressure towards areas of low pressure.
A barometer that falls quickly announces a storm.
Climate describes the average over decades, whereas weather changes within hours.
Carbon dioxide and methane absorb infrared radiation and warm the atmosphere.
Fog is a cloud that touches the ground.
Lightning heats the air so suddenly that it expands with a bang, which we hear as thunder.
Coastal regions have milder winters because the sea releases heat slowly.
Hail forms when strong updraughts lift raindrops repeatedly into freezing layers."""
    ),
    "Language": (
        """A syllable usually contains exactly one vowel sound.
Children acquire grammar without being taught its rules explicitly.
Loanwords travel along with the goods and ideas that they name.
Many languages mark gender on nouns, others on pronouns only, and some not at all.
An alphabet assigns symbols to sounds, while logographic scripts assign them to words or morphemes.
Punctuation separates clauses and prevents ambiguity.
A dialect differs from the standard in vocabulary, pronunciation and sometimes syntax.
Translators must choose between fidelity to the letter and fidelity to the meaning.
Irregular verbs tend to be the most frequent ones."""
    ),
    "Physics": (
        """A body remains at rest or in uniform motion unless a force acts on it.
Energy can be transformed, but neither created nor destroyed.
Sound needs a medium; light travels even through a vacuum.
A lever trades force against distance.
Electric current flows only in a closed circuit.
Metals conduct heat and electricity well because some of their electrons move freely.
The boiling point of a liquid drops as the surrounding pressure decreases.
Friction converts motion into heat, which is why brakes become hot.
A prism separates white light into its spectral colours.
Doubling the speed of a vehicle quadruples its kinetic energy."""
    ),
    "Mathematics": (
        """A prime number has exactly two divisors, one and itself.
The angles of a plane triangle add up to 180 degrees.
The ratio of a circle's circumference to its diameter is the same for every circle.
Two events are independent if the occurrence of one does not alter the probability of the other.
A proof by contradiction assumes the opposite and derives an absurdity.
The median is less sensitive to extreme values than the mean.
Multiplying a matrix by the identity leaves it unchanged.
Every integer greater than one factors into primes in essentially one way.
The derivative of a function measures how quickly its value changes."""
    ),
    "Cities and buildings": (
        """An arch carries its load by compression and needs no mortar to stand.
Concrete resists pressure well but cracks under tension, so steel bars reinforce it.
Sewers and clean water have saved more lives than most medicines.
Insulation keeps a house warm in winter and cool in summer.
Public transport becomes attractive when it is frequent and punctual.
Medieval towns grew around a market, a church and a wall.
Skyscrapers became practical only after the invention of the safety lift.
A foundation distributes the weight of a building over the ground.
Narrow, shaded streets are a traditional answer to a hot climate."""
    ),
    "Animals": (
        """Mammals feed their young with milk and keep a constant body temperature.
Bats locate their prey by the echo of their own calls.
Migratory birds navigate by the sun, the stars and the Earth's magnetic field.
Spiders have eight legs and therefore are not insects.
Whales descend from animals that once lived on land.
Bees inform one another about the direction and distance of blossoms by dancing.
Amphibians begin their lives in water and breathe through gills at first.
Predators limit the number of herbivores and thereby protect the vegetation.
An octopus has three hearts and can change its colour within a second."""
    ),
    "Kitchen chemistry": (
        """Yeast converts sugar into alcohol and carbon dioxide, which makes dough rise.
Proteins in egg white coagulate when they are heated.
Vinegar contains acetic acid and dissolves limescale.
Frying browns the surface, because sugars and proteins react at high temperature.
Salt draws water out of vegetables and preserves them.
Baking soda needs an acid to release its gas.
An emulsion such as mayonnaise keeps oil and water together with the help of egg yolk.
Refrigeration slows bacteria down but does not kill them.
Bread becomes stale mainly because its starch crystallises."""
    ),
    "Music and art": (
        """An octave doubles the frequency of a tone.
A string sounds higher when it is shorter, thinner or tighter.
Perspective makes parallel lines meet at a vanishing point.
Oil paint dries slowly, which allows soft transitions between shades.
A sculptor either removes material, as in carving, or adds it, as in modelling.
The rhythm of a piece is organised in bars with a recurring accent.
Mixing blue and yellow pigment produces green.
A photograph is exposed correctly when aperture, shutter speed and sensitivity match the light.
Choirs are usually divided into soprano, alto, tenor and bass."""
    ),
}


def notes(rng):
    """Five to eight sentences of one topic, or of two compared, in one of three layouts."""
    names = rng.sample(sorted(TOPICS), 2)
    reader = lx.Person(rng)
    facts = rng.sample(TOPICS[names[0]].split("\n"), rng.between(5, 7))
    style = rng.below(4)
    if style == 0:
        return f"# {names[0]}\n\n" + "\n".join(f"- {f}" for f in facts)
    if style == 1:
        cut = rng.between(2, 4)
        return f"{names[0]}\n\n" + " ".join(facts[:cut]) + "\n\n" + " ".join(facts[cut:])
    if style == 2:
        other = rng.sample(TOPICS[names[1]].split("\n"), 3)
        head = fill(rng, "Notes of {who}, %s %d" % (rng.pick(lx.MONTHS), rng.between(1990, 2025)), {"who": reader.full})
        return f"{head}\n\n{names[0]}: " + " ".join(facts[:4]) + f"\n\n{names[1]}: " + " ".join(other)
    asked, teller = reader.first, lx.Person(rng, (reader.first,)).first
    lines = [
        f"{asked}: "
        + rng.pick(
            [
                f"Tell me something about {names[0].lower()}.",
                f"What should I know about {names[0].lower()}?",
                f"What have you read about {names[0].lower()}?",
            ]
        )
    ]
    for f in facts[:5]:
        lines += [
            f"{teller}: {f}",
            f"{asked}: "
            + rng.pick(
                [
                    "And what else?",
                    "I did not know that.",
                    "Really?",
                    "Go on.",
                    "That makes sense.",
                    "Who told you?",
                    "One more, please.",
                ]
            ),
        ]
    return "\n".join(lines + [f"{teller}: That is all I remember."])


PASSAGES = [(notes, 1)]
