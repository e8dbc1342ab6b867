"""Simple narrative text in German, French, Spanish and Chinese.

Nouns carry their gender (and German its case forms), so that articles and adjectives agree.
"""

from . import lexicon as lx
from .core import sentences


def pack(rng, ctx, templates, first, count):
    """An opening sentence, then some others in a random order, in two paragraphs."""
    rest = rng.sample(templates, count)
    half = count // 2
    return sentences(rng, [rng.pick(first)] + rest[:half], ctx) + "\n\n" + sentences(rng, rest[half:], ctx)


def words(text):
    return [tuple(x.split("/")) for x in text.split()]


DE_NOUN = words(
    "Ring/m Hammer/m Hund/m Apfel/m Brief/m Schlüssel/m Koffer/m Mantel/m Vogel/m Stein/m Katze/f Decke/f Lampe/f"
    " Uhr/f Flasche/f Karte/f Gitarre/f Tasche/f Blume/f Kerze/f Buch/n Heft/n Kissen/n Brot/n Radio/n Bild/n Glas/n"
    " Messer/n Seil/n Fahrrad/n"
)
DE_JOB = {
    True: "Lehrerin Ärztin Bäckerin Gärtnerin Müllerin Näherin Köchin Musikerin Ingenieurin Malerin".split(),
    False: "Lehrer Arzt Bäcker Gärtner Müller Schneider Koch Musiker Ingenieur Maler".split(),
}
DE_ADJ = "alt klein rot neu schön schwer groß leicht grün weiß braun warm kalt kaputt rund schmal".split()
DE_TIME = (
    "am Morgen|am Abend|im Sommer|im Winter|jeden Montag|am Sonntag|nach dem Essen|gegen Mittag|spät in der Nacht"
    .split("|")
)
DE_PLACE = (
    "auf dem Markt|im Garten|am Fluss|in der Küche|im Wald|an der Brücke|in der Schule|am Bahnhof|hinter dem"
    " Haus|im Keller|auf dem Dach|am Meer".split("|")
)
DE_FOOD = "Brot Käse Suppe Honig Fisch Reis Kuchen Milch Tee Butter".split()


def german(rng):
    ctx = {}
    a, b = lx.cast(rng, ctx, "a", "b")
    noun, g = rng.pick(DE_NOUN)
    noun2, g2 = rng.pick([n for n in DE_NOUN if n[0] != noun])
    adj, adj2 = rng.sample(DE_ADJ, 2)
    der, den = {"m": ("der", "den"), "f": ("die", "die"), "n": ("das", "das")}[g]
    der2, den2 = {"m": ("der", "den"), "f": ("die", "die"), "n": ("das", "das")}[g2]
    ein_akk = {"m": f"einen {adj}en", "f": f"eine {adj}e", "n": f"ein {adj}es"}[g]
    ein2_akk = {"m": f"einen {adj2}en", "f": f"eine {adj2}e", "n": f"ein {adj2}es"}[g2]
    er, ihn = ("sie", "sie") if a.female else ("er", "ihn")
    ctx.update(
        er=er,
        ein_job="eine {job}" if a.female else "ein {job}",
        er_b="sie" if b.female else "er",
        job=rng.pick(DE_JOB[a.female]),
        job_b=rng.pick(DE_JOB[b.female]),
        der_x=f"{der} {noun}",
        den_x=f"{den} {noun}",
        der_y=f"{der2} {noun2}",
        den_y=f"{den2} {noun2}",
        ein_x=f"{ein_akk} {noun}",
        ein_y=f"{ein2_akk} {noun2}",
        adj=adj,
        adj2=adj2,
        es_x={"m": "ihn", "f": "sie", "n": "es"}[g],
        ort=lx.place(rng),
        zeit=DE_TIME,
        wo=DE_PLACE,
        essen=DE_FOOD,
        n=str(rng.between(3, 90)),
        jahr=str(rng.between(1900, 2020)),
        wo_a=rng.pick(DE_PLACE),
        zeit_a=rng.pick(DE_TIME),
    )
    first = [
        "{a_full} wohnt in {ort} und ist {job}.",
        "In {ort} lebte {jahr} {ein_job} namens {a}.",
        "{a} und {b} wohnen seit {n} Jahren in {ort}.",
    ]
    body = [
        "{a} hat {ein_x} und {ein_y}.",
        "{Der_x} ist {adj}, aber {der_y} ist {adj2}.",
        "{Zeit} sitzt {er} {wo} und isst {essen}.",
        "„Wo ist {der_x}?\u201c, fragt {b}. „Ich habe {es_x} {wo_a} gesehen\u201c, antwortet {a}.",
        "{b} ist {job_b} und besucht {a} {zeit}.",
        "{Er} hat {den_x} {zeit} {wo_a} verloren.",
        "Dort findet {b} {den_x} und bringt {es_x} nach {ort}.",
        "„Danke, {b}\u201c, sagt {a}. „Ohne {den_x} kann ich nicht arbeiten.\u201c",
        "{Der_x} kostet {n} Euro, {der_y} ist billiger.",
        "{b} möchte {den_y} kaufen, weil {er_b} keine Zeit mehr hat.",
        "Wenn es regnet, bleiben {a} und {b} zu Hause und trinken Tee.",
        "{Zeit} geht {a} nach {ort} zurück, obwohl es kalt ist.",
        "Niemand weiß, woher {der_y} kommt.",
        "{a} zeigt {b} {den_y} und erzählt von {ort}.",
    ]
    return pack(rng, ctx, body, first, rng.between(7, 10))


FR_NOUN = words(
    "panier/m crayon/m livre/m chapeau/m marteau/m vélo/m couteau/m manteau/m tableau/m verre/m plume/f lettre/f"
    " clé/f bague/f lampe/f bouteille/f carte/f fleur/f guitare/f valise/f montre/f boîte/f chaise/f photo/f"
)
FR_ADJ = words(
    "noir/noire vert/verte blanc/blanche lourd/lourde neuf/neuve rond/ronde rouge/rouge jaune/jaune bleu/bleue"
    " fragile/fragile ancien/ancienne léger/légère"
)
FR_JOB = words(
    "boulanger/boulangère médecin/médecin professeur/professeure jardinier/jardinière"
    " musicien/musicienne cuisinier/cuisinière facteur/factrice peintre/peintre couturier/couturière"
)
FR_TIME = (
    "le matin|le soir|en été|en hiver|tous les lundis|le dimanche|après le repas|vers midi|tard dans la nuit".split("|")
)
FR_PLACE = (
    "au marché|dans le jardin|près de la rivière|dans la cuisine|dans la forêt|sur le pont|à"
    " l'école|à la gare|derrière la maison|sur la plage".split("|")
)
FR_FOOD = "du pain|du fromage|de la soupe|du miel|du poisson|du riz|des pommes|du gâteau".split("|")


def french(rng):
    ctx = {}
    a, b = lx.cast(rng, ctx, "a", "b")
    (x, g), (y, h) = rng.sample(FR_NOUN, 2)
    i, j = int(g == "f"), int(h == "f")
    adj, adj2 = rng.sample(FR_ADJ, 2)
    ctx.update(
        il="elle" if a.female else "il",
        job=rng.pick(FR_JOB)[int(a.female)],
        job_b=rng.pick(FR_JOB)[int(b.female)],
        le_x=("le ", "la ")[i] + x,
        un_x=("un ", "une ")[i] + x + " " + adj[i],
        le_y=("le ", "la ")[j] + y,
        un_y=("un ", "une ")[j] + y + " " + adj2[j],
        adj=adj[i],
        adj2=adj2[j],
        pron=("le", "la")[i],
        ville=lx.place(rng),
        temps=FR_TIME,
        ou=FR_PLACE,
        ou_a=rng.pick(FR_PLACE),
        manger=FR_FOOD,
        n=str(rng.between(3, 90)),
        an=str(rng.between(1900, 2020)),
        ce_x=("ce ", "cette ")[i] + x,
        du_y=("du ", "de la ")[j] + y,
    )
    first = [
        "{a_full} habite à {ville} et travaille comme {job}.",
        "En {an}, {a} vivait à {ville} avec {b}.",
        "{a} et {b} habitent à {ville} depuis {n} ans.",
    ]
    body = [
        "{a} possède {un_x} et {un_y}.",
        "{Le_x} est {adj}, mais {le_y} est {adj2}.",
        "{Temps}, {il} mange {manger} {ou}.",
        "«\u00a0Où est {le_x}\u00a0?\u00a0» demande {b}. «\u00a0Regarde {ou_a}\u00a0», répond {a}.",
        "{b} travaille comme {job_b} et rend visite à {a} {temps}.",
        "Un jour, {a} perd {le_x} {ou_a}.",
        "C'est {b} qui trouve {le_x} et qui {pron} rapporte à {ville}.",
        "«\u00a0Merci, {b}\u00a0», dit {a}. «\u00a0Sans {ce_x}, je ne peux pas travailler.\u00a0»",
        "{Le_x} coûte {n} euros, {le_y} coûte moins cher.",
        "{b} veut acheter {le_y}, parce que {le_x} ne marche plus.",
        "Quand il pleut, {a} et {b} restent à la maison et boivent du thé.",
        "{Temps}, {a} rentre à {ville}, même s'il fait froid.",
        "Personne ne sait d'où vient {le_y}.",
        "{a} montre {le_y} à {b} et parle de {ville}.",
        "{Il} ne parle jamais {du_y}.",
    ]
    return pack(rng, ctx, body, first, rng.between(7, 10))


ES_NOUN = words(
    "anillo/m paraguas/m libro/m sombrero/m martillo/m reloj/m cuchillo/m cuadro/m vaso/m espejo/m manta/f carta/f"
    " llave/f guitarra/f lámpara/f botella/f flor/f cesta/f maleta/f bicicleta/f caja/f silla/f manzana/f radio/f"
)
ES_ADJ = words(
    "negro/negra blanco/blanca pesado/pesada nuevo/nueva redondo/redonda rojo/roja verde/verde azul/azul"
    " frágil/frágil antiguo/antigua ligero/ligera roto/rota pequeño/pequeña"
)
ES_JOB = words(
    "panadero/panadera médico/médica maestro/maestra jardinero/jardinera músico/música"
    " cocinero/cocinera cartero/cartera pintor/pintora ingeniero/ingeniera"
)
ES_TIME = (
    "por la mañana|por la noche|en verano|en invierno|todos los lunes|los domingos|después de comer|al"
    " mediodía|antes de dormir".split("|")
)
ES_PLACE = (
    "en el mercado|en el jardín|cerca del río|en la cocina|en el bosque|sobre el puente|en la escuela|en la"
    " estación|detrás de la casa|en la playa".split("|")
)
ES_FOOD = "pan|queso|sopa|miel|pescado|arroz|manzanas|pastel|aceitunas|tortilla".split("|")


def spanish(rng):
    ctx = {}
    a, b = lx.cast(rng, ctx, "a", "b")
    (x, g), (y, h) = rng.sample(ES_NOUN, 2)
    i, j = int(g == "f"), int(h == "f")
    adj, adj2 = rng.sample(ES_ADJ, 2)
    ctx.update(
        job=rng.pick(ES_JOB)[int(a.female)],
        job_b=rng.pick(ES_JOB)[int(b.female)],
        el_x=("el ", "la ")[i] + x,
        un_x=("un ", "una ")[i] + x + " " + adj[i],
        el_y=("el ", "la ")[j] + y,
        un_y=("un ", "una ")[j] + y + " " + adj2[j],
        adj=adj[i],
        adj2=adj2[j],
        lo=("lo", "la")[i],
        ciudad=lx.place(rng),
        tiempo=ES_TIME,
        donde=ES_PLACE,
        donde_a=rng.pick(ES_PLACE),
        comer=ES_FOOD,
        n=str(rng.between(3, 90)),
        anio=str(rng.between(1900, 2020)),
        barato="barata" if j else "barato",
        este_x=("este ", "esta ")[i] + x,
        del_y=("del ", "de la ")[j] + y,
    )
    first = [
        "{a_full} vive en {ciudad} y trabaja como {job}.",
        "En {anio}, {a} vivía en {ciudad} con {b}.",
        "{a} y {b} viven en {ciudad} desde hace {n} años.",
    ]
    body = [
        "{a} tiene {un_x} y {un_y}.",
        (
            "{El_x} es {adj}, pero {el_y} es {adj2}."
            if adj[0] != "roto" and adj2[0] != "roto"
            else "{El_x} está aquí, pero {el_y} está lejos."
        ),
        "{Tiempo} come {comer} {donde}.",
        "«¿Dónde está {el_x}?», pregunta {b}. «Está {donde_a}», responde {a}.",
        "{b} trabaja como {job_b} y visita a {a} {tiempo}.",
        "Un día, {a} pierde {el_x} {donde_a}.",
        "Es {b} quien encuentra {el_x} y {lo} lleva a {ciudad}.",
        "«Gracias, {b}», dice {a}. «Sin {este_x} no puedo trabajar.»",
        "{El_x} cuesta {n} euros; {el_y} es más {barato}.",
        "{b} quiere comprar {el_y}, porque {el_x} ya no sirve.",
        "Cuando llueve, {a} y {b} se quedan en casa y toman té.",
        "{Tiempo}, {a} vuelve a {ciudad}, aunque hace frío.",
        "Nadie sabe de dónde viene {el_y}.",
        "{a} le enseña {el_y} a {b} y habla de {ciudad}.",
        "Nunca habla {del_y}.",
    ]
    return pack(rng, ctx, body, first, rng.between(7, 10))


def chinese(rng):
    names = rng.sample(
        [
            "小明",
            "小红",
            "王老师",
            "李先生",
            "张医生",
            "爱丽",
            "大卫",
        ],
        2,
    )
    things = rng.sample(["书", "花", "地图", "钥匙", "信", "照片", "杯子", "伞"], 2)
    place = rng.pick(["学校", "河边", "城里", "山上", "海边", "车站"])
    ctx = dict(
        a=names[0],
        b=names[1],
        x=things[0],
        y=things[1],
        p=place,
        day=["今天", "明天", "昨天", "每天"],
        food=["米饭", "面包", "苹果", "鱼"],
        n=str(rng.between(2, 60)),
    )
    first = ["{a}住在{p}。", "{a}和{b}是朋友。", "{a}今年{n}岁。"]
    body = [
        "{a}有一个朋友，叫{b}。",
        "{b}喜欢吃{food}。",
        "{a}的{x}在{p}。",
        "\u201c我的{x}在哪里？\u201d{a}问。\u201c在{p}。\u201d{b}说。",
        "{b}不要{y}，要{x}。",
        "{y}是{b}的，不是{a}的。",
        "他们一起去{p}。",
        "{x}要{n}块钱。",
        "{a}说：\u201c谢谢你，{b}。\u201d",
        "天气很好，{a}在{p}吃{food}。",
    ]
    rest = rng.sample(body, rng.between(6, 9))
    return "".join(sentences(rng, [s], ctx) for s in [rng.pick(first)] + rest)


PASSAGES = [(german, 4), (french, 4), (spanish, 4), (chinese, 1)]
