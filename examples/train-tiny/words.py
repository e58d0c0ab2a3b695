"""The words of the story grammar: people, animals, things, places, weather.

Everything here was written for bitloom. `text.py` puts the words into sentences.
"""

GIRLS = """Lily Mia Anna Rose Ella Nora Sara Lucy Emma Ruby Clara Molly Daisy Ivy Zoe Maya Jane
Amy Tess Holly""".split()
BOYS = """Tom Ben Sam Max Leo Jack Finn Noah Oscar Tim Peter Adam Hugo Luke Owen Theo Billy Eli
Dan Henry""".split()
# An animal hero has a kind and a name of its own; the names serve girls and boys alike.
ANIMAL_NAMES = "Pip Dot Bram Tilly Fern Moss Nutmeg Biscuit Poppy Rusty Hazel Clover".split()
ANIMALS = """rabbit fox mouse bear hedgehog squirrel duck frog owl turtle puppy kitten lamb pony
badger otter beaver""".split()
CHILD_ADJECTIVES = "little kind curious brave clever quiet shy cheerful careful busy funny".split()
GROWN_UPS = [
    ("Mom", "she"), ("Dad", "he"), ("Grandma", "she"), ("Grandpa", "he"), ("Aunt May", "she"),
    ("Uncle Joe", "he"), ("Mrs. Hill", "she"), ("Mr. Green", "he"), ("Miss Bell", "she"),
    ("the baker", "he"), ("the gardener", "he"), ("the farmer", "she"),
]
COLORS = "red blue green yellow purple orange white brown golden silver pink".split()
SIZES = "big small tiny little old new soft shiny pretty".split()

# noun, the adjectives that suit it, what one does with it
TOYS = [
    ("ball", "play with"), ("kite", "fly"), ("drum", "play"), ("doll", "play with"),
    ("teddy bear", "hug"), ("toy train", "play with"), ("toy boat", "sail"), ("wagon", "pull"),
    ("puzzle", "play with"), ("book", "read"), ("whistle", "blow"), ("toy car", "race"),
    ("robot", "play with"), ("swing", "use"), ("scooter", "ride"), ("bucket", "fill"),
]
TREASURES = """hat scarf key coin ring shell button bell lantern mitten feather ribbon marble
necklace bracelet watch cup umbrella basket map flute star stone""".split()
HIDING_PLACES = [
    "under the bed", "behind the door", "under a pile of leaves", "in the tall grass",
    "behind the old tree", "under the table", "in the mud", "on top of the shelf",
    "inside an empty box", "under a flat stone", "between two bushes", "behind the curtain",
    "in the pocket of a coat", "next to the fence", "under the bench", "in a bird's nest",
]
# name, preposition for being there
PLACES = [
    ("park", "in"), ("forest", "in"), ("garden", "in"), ("beach", "on"), ("farm", "on"),
    ("meadow", "in"), ("village", "in"), ("market", "at"), ("school", "at"), ("river", "by"),
    ("lake", "by"), ("pond", "by"), ("hill", "on"), ("library", "in"), ("playground", "on"),
    ("barn", "in"), ("orchard", "in"), ("bakery", "in"), ("old mill", "at"), ("town", "in"),
]
HOMES = [
    "in a small house near the {p}", "in a tall house by the sea", "in a village by the river",
    "in a cottage on the hill", "on a farm with many animals", "at the edge of the forest",
    "in a yellow house with a green door", "in a quiet town between two mountains",
    "near the {p}", "not far from the {p}",
]
FOODS = """bread soup cheese honey cake pie jam porridge milk apples berries carrots nuts
cookies pancakes""".split()
BAKES = [
    ("a chocolate cake", "the cake", "it"), ("an apple pie", "the pie", "it"),
    ("a pot of soup", "the soup", "it"), ("some pancakes", "the pancakes", "they"),
    ("a loaf of bread", "the bread", "it"), ("some cookies", "the cookies", "they"),
    ("a carrot cake", "the cake", "it"), ("some berry jam", "the jam", "it"),
]
INGREDIENTS = """flour sugar butter eggs milk honey salt apples berries carrots nuts
cinnamon""".split()
BUILDS = [
    ("a tree house", "boards and nails"), ("a small boat", "wood and a white sail"),
    ("a kite", "paper and string"), ("a bird house", "wood and red paint"),
    ("a sand castle", "wet sand and shells"), ("a snowman", "snow and a carrot"),
    ("a little bridge", "stones and branches"), ("a tent", "blankets and chairs"),
    ("a paper crown", "paper and gold stars"), ("a bench", "wood and nails"),
]
SKILLS = [
    ("ride a bike", "riding", "fell off"), ("swim", "swimming", "swallowed some water"),
    ("skate", "skating", "slipped and fell"), ("climb the tall tree", "climbing", "slid down"),
    ("whistle", "whistling", "made no sound at all"), ("play the flute", "playing",
     "made a terrible noise"), ("jump rope", "jumping", "got tangled in the rope"),
    ("read", "reading", "mixed up all the letters"), ("paint a horse", "painting",
     "made a big blue spot"), ("catch a ball", "catching", "dropped the ball"),
    ("dance", "dancing", "stepped on a toe"), ("tie a knot", "tying", "made a big mess"),
]
SEEDS = [
    ("sunflower", "a tall yellow sunflower"), ("pumpkin", "a huge orange pumpkin"),
    ("bean", "a green bean plant"), ("tomato", "a plant full of red tomatoes"),
    ("rose", "a bush of sweet pink roses"), ("carrot", "a row of orange carrots"),
    ("apple", "a small apple tree"), ("melon", "a round green melon"),
]
FEARS = [
    ("the dark", "night", "the room was black and the shadows looked like monsters"),
    ("thunder", "night", "the thunder went boom and the windows shook"),
    ("deep water", "day", "the water was cold and {h} could not see the bottom"),
    ("the big slide", "day", "the slide was so high that it seemed to touch the clouds"),
    ("the old bridge", "day", "the bridge moved and made a loud noise"),
    ("big dogs", "day", "a big dog barked behind a fence"),
    ("the cellar", "night", "the stairs were steep and something made a scratching sound"),
    ("spiders", "night", "a spider with long legs sat on the wall"),
]
TROUBLED = [
    ("bird", "with a hurt wing", "could not fly", "made a warm nest in a box"),
    ("kitten", "stuck in a tree", "was too scared to come down", "climbed up a ladder"),
    ("puppy", "without a home", "was wet and hungry", "gave it some warm milk"),
    ("hedgehog", "caught in a net", "could not move", "cut the net very carefully"),
    ("lamb", "lost in the fog", "could not find its mother", "carried it home over the hill"),
    ("duckling", "all alone in the reeds", "was looking for its family",
     "walked around the pond with it"),
    ("butterfly", "trapped in a jar", "could not get out", "took off the lid"),
    ("fish", "in a tiny puddle", "needed more water", "carried it to the river in a bucket"),
    ("squirrel", "under a fallen branch", "could not get free", "lifted the heavy branch"),
    ("turtle", "on its back", "could not turn over", "gently turned it around"),
]
BREAKABLES = [
    ("a blue vase", "the vase"), ("a white plate", "the plate"), ("a glass bowl", "the bowl"),
    ("a window", "the window"), ("a flower pot", "the flower pot"), ("an old clock", "the clock"),
    ("a lamp", "the lamp"), ("a tea cup", "the cup"),
]
WEATHER = {
    "sunny": ["The sun was shining and the sky was blue.", "It was a warm and sunny day.",
              "It was a bright morning, and the birds were singing.",
              "A soft wind blew, and white clouds sailed across the sky."],
    "rainy": ["It was raining hard.", "Dark clouds covered the sky, and rain began to fall.",
              "Rain drops ran down the windows.", "It was a gray and rainy day."],
    "windy": ["The wind was strong that day.", "The wind shook the trees and chased the leaves.",
              "It was a cold and windy autumn day."],
    "snowy": ["Snow covered the roofs and the trees.", "It was a cold winter morning.",
              "White snow fell softly from the sky.", "The pond was frozen, and the air was cold."],
    "foggy": ["A thick fog lay over the fields.", "The morning was foggy and very quiet."],
}
MORALS = [
    "From that day on, {h} knew that it is good to ask for help.",
    "{h} learned that a good friend is the best treasure of all.",
    "{h} learned that being kind makes everyone happy.",
    "And {h} never forgot that day.",
    "That night, {h} fell asleep with a smile.",
    "After that, they were the best of friends.",
    "It was the best day of the whole year.",
    "And they all lived happily ever after.",
    "\"What a wonderful day,\" {h} thought.",
    "{h} was tired, but {h.his} heart was full of joy.",
    "{h} went home and told {g} the whole story.",
    "Everyone was happy, and the day ended with a song.",
    "{h} learned that it is never too late to try again.",
    "Then they went home together, hand in hand, and ate {food}.",
]
