"""Plots of the story grammar: openings and lists of sentence templates (see `text.expand`).

An empty choice, `[|...]`, makes a sentence optional. A sentence that follows `!"` or `?"` begins
with a capital form (`{h.He}`, `{g.Name}`), since `expand` cannot tell it from `said ...`.
"""

OPENINGS = [
    "Once upon a time, there was {h.a} named {h}. {h} lived {home}. {weather}",
    "Once upon a time, {h.a} named {h} lived {home}. [|{weather}]",
    "Once there was {h.a}. {h.His} name was {h}. [|{h} lived {home}.] {weather}",
    "There once was {h.a} called {h} who lived {home}. [|{weather}]",
    "{h} was {h.a}. {h.He} lived {home}. [|{weather}]",
    "One [morning|day|afternoon], {h.a} named {h} went {p.to}. {weather}",
    "{weather} {h}, {h.a}, [looked out of the window|was playing at home|woke up early].",
    "In the {p}, there was {h.a} named {h}. [|{weather}]",
]

MEET = ("[{h} met {f}, {f.a}|{f}, {f.a}, came by|{h} saw {h.his} friend {f}|"
        "{h.his} friend {f} came to visit]")

PLOTS = {
    "lost": [
        "{h} had {treasure.a}. [{h.He} loved it very much.|It was a gift from {g}.|"
        "{h.He} took it everywhere.]",
        "One day, the {treasure} was gone. [\"Oh no! Where is my {treasure}?\" {h} cried.|"
        "{h} was very sad and began to cry.]",
        "{h.He} looked {hide}, but it was not there. [|{h.He} looked {hide.second}, but found "
        "only [an old shoe|a sleepy cat|some dust|a snail].]",
        "[Then|Soon|After a while], " + MEET + ".",
        "[\"What is wrong?\" asked {f}.|\"Why are you so sad?\" {f} asked.] "
        "[\"I lost my {treasure},\" said {h}.|\"My {treasure} is gone,\" {h} said.]",
        "[\"Do not worry. I will help you,\" said {f}.|\"Let us look together,\" said {f}.]",
        "[They searched for a long time.|They looked everywhere.|Together they went {q.to}.]",
        "[At last|Finally|Then], {f} looked {hide.third}. [There was|{f.He} found] the {treasure.full}!",
        "[\"Thank you, {f}!\" said {h}. {h.He} gave {f} a big hug.|{h} jumped for joy and thanked "
        "{h.his} friend.]",
    ],
    "fear": [
        "{h} was afraid of {fear}.",
        "One {fear.when}, {fear.scene}. [{h}'s heart beat fast.|{h} began to shake.|"
        "{h} closed {h.his} eyes.]",
        "[\"I am scared,\" {h.he} said.|\"I want to go home,\" {h.he} cried.]",
        "{g} [sat down next to {h}|took {h.his} hand|heard {h.him} and came at once].",
        "[\"Everyone is afraid sometimes,\" said {g}.|\"When I was little, I was afraid of {fear} "
        "too,\" said {g}.] [\"Let us count to ten together.\"|\"Take a deep breath and sing a song.\"|"
        "\"I will stay with you.\"]",
        "[So they counted: one, two, three.|So {h} took a deep breath.|{h} held {g.his} hand and "
        "sang a little song.]",
        "[Slowly|Little by little], the fear became smaller [|and smaller]. [{h} opened {h.his} eyes "
        "and smiled.|{h} felt warm and safe.]",
        "\"[Look, I am brave|I am not afraid anymore|I can do it]!\" {h} [said|shouted|laughed]. "
        "{g.Name} was very proud of {h.him}.",
    ],
    "rescue": [
        "[One day|That day|In the afternoon], {h} was walking {p.at} [|with {f}, {f.a}].",
        "[Suddenly|All at once], {h.he} heard a [small|sad|soft] sound. It was {animal.a} "
        "{animal.state}.",
        "The {animal} {animal.trouble}. [\"Poor little {animal}!\" said {h}.|\"Please help me,\" said "
        "the {animal}.|It looked at {h} with big sad eyes.]",
        "{h} [wanted to help|thought for a moment|knew what to do]. [{h.He} ran to get {g}.|"
        "{h.He} called {g}.|\"Do not be afraid,\" {h.he} said.]",
        "{h.He} {animal.rescue}. [It was not easy, but {h} did not give up.|{h.He} was very gentle.|"
        "It took a long time.]",
        "[Soon|At last], the {animal} was [safe|free and happy|well again]. [|It [danced around|"
        "looked at] {h} and made a happy sound.]",
        "[\"Thank you for saving me,\" said the {animal}.|\"You are very kind,\" said {g}.|"
        "\"Goodbye, little {animal}!\" said {h}.]",
        "[|The next day, the {animal} came back and brought {treasure.a} for {h}.|"
        "After that, the {animal} came to see {h} every day.]",
    ],
    "share": [
        "{h} had {toy.a}. [{h.He} liked to {toy.use} it every day.|It was {h.his} favorite toy.]",
        "[One day|That day], " + MEET + ". [\"Can I {toy.use} your {toy}?\" asked {f}.|"
        "\"What a nice {toy}! May I try it?\" asked {f}.]",
        "[\"No! It is mine,\" said {h}.|{h} held the {toy} tight and said, \"No, go away!\"]",
        "{f} [was sad and walked away|began to cry|sat down alone on a bench].",
        "[Then {h} tried to {toy.use} the {toy} alone, but it was not much fun.|{h} felt bad. "
        "{h.He} did not like to see {f} so sad.|{g} saw it and said, \"Friends share their "
        "things.\"]",
        "So {h} went to {f} and said, \"I am sorry. [Let us take turns.|You can have the first "
        "turn.|Please come and play with me.]\"",
        "{f} [smiled|was happy again|dried {f.his} tears]. They [played together until the sun went "
        "down|took turns and laughed a lot|shared the {toy} all day long].",
        "[|\"It is more fun to share,\" said {h}.|Then {f} let {h} hold {f.his} {treasure.full}.]",
    ],
    "bake": [
        "[It was {f}'s birthday|{g.Name} was hungry|{h} wanted to make a surprise for {g}]. {h} "
        "decided to make {bake}.",
        "{h.He} took {mix}, {mix.second} and {mix.third}. {h.He} [mixed everything in a big bowl|"
        "put everything on the kitchen table|sang while {h.he} worked].",
        "But then [the bowl fell on the floor|there was no more {mix}|the kitchen was full of smoke|"
        "{h} dropped the spoon, and {mix.second} flew everywhere]! \"Oh no, what a mess!\" {h} said.",
        "{f}, {f.a}, [heard the noise and came in|knocked at the door]. \"[I can help you|Do not be "
        "sad|We can try again],\" said {f}.",
        "[They cleaned the floor and started again.|{f} ran {q.to} and came back with more {mix}.|"
        "Together they opened the windows and washed the dishes.]",
        "[Soon|After an hour], {bake.the} {bake.was} ready. {bake.It} smelled [wonderful|so good|"
        "sweet and warm].",
        "[They gave a piece to {g} too.|They ate everything and licked the spoons.|{g} came home and "
        "tasted {bake.the}.] \"[This is delicious|I have never eaten anything so good|What a lovely "
        "surprise]!\" said {g}.",
    ],
    "build": [
        "{h} wanted to build {build}. [\"I need {build.parts},\" {h.he} said.|{h.He} found "
        "{build.parts} and began to work.]",
        "[{h.He} worked all morning.|It was hard work.] But [the wind blew it down|it fell apart|it "
        "was crooked and weak]. {h} was [angry|sad|tired and wanted to stop].",
        MEET + ". \"[What are you doing|What happened here|Do you need help]?\" asked {f}.",
        "\"[It is too hard for me|I cannot do it alone|Nothing works today],\" said {h}.",
        "{f} [had a good idea|thought about it|laughed and said, \"Then we will do it together\"]. "
        "[|{f.He} held everything in place while {h} worked.] [|{g} brought them {food} and a warm "
        "drink.]",
        "[In the evening|At last|When the sun went down], it was finished. They had made {build}! "
        "[It was big and strong.|It was painted {color}.|It was the best one {p.at}.]",
        "\"[We did it|Look what we made|We are a good team]!\" [{h} and {f} shouted|said {h}]. "
        "[|{g.Name} clapped {g.his} hands.]",
    ],
    "skill": [
        "{h} wanted to learn to {skill}. [All the other children could do it.|{f}, {f.a}, could do it "
        "very well.|{h.He} dreamed about it every night.]",
        "[First|On Monday], {h} tried and {skill.failed}. [|\"Ouch!\" said {h}.] [Some children "
        "laughed.|{h.His} face turned red.]",
        "[Then {h.he} tried again, but {h.he} {skill.failed} again.|\"I will never learn it,\" {h.he} "
        "said.]",
        "[\"Do not give up,\" said {g}. \"You need time.\"|{g} smiled and said, \"I will show you "
        "how.\"|\"It is hard at first,\" said {g}. \"Try a little every day.\"]",
        "So {h} [practiced every day|tried again and again|worked hard for a whole week]. "
        "[|Some days were good, and some days were bad.]",
        "[One morning|At last|Then one day], it worked! \"Look at me, I am {skill.doing}!\" {h} "
        "[shouted|cried|called].",
        "{g.Name} [was so proud|clapped and cheered|gave {h.him} a big hug]. [|Now {h} can {skill} "
        "better than anyone {p.at}.|The next day, {h} helped {f} to learn it too.]",
    ],
    "seed": [
        "[One day|In the spring], {g} gave {h} a {seed} seed. \"[Plant it and take good care of it|"
        "Put it in the ground and wait],\" said {g}.",
        "{h} made a hole in the ground [|behind the house|near the fence] and put the seed inside. "
        "{h.He} gave it water every day.",
        "[One day passed, then two, then three.|{h} waited and waited.] Nothing happened. \"[Why does "
        "it not grow|Is the seed asleep]?\" asked {h}.",
        "\"[Be patient|Good things take time|Wait a little longer],\" said {g}. [|{h} sat next to the "
        "seed and told it a story.]",
        "[One morning|After a week], a tiny green leaf came out of the ground. {h} [danced in the "
        "garden|ran to tell {g}|could not believe {h.his} eyes].",
        "[But a hungry snail wanted to eat it, so {h} carried the snail {q.to}.|But the wind was strong, "
        "so {h} tied the plant to a stick.|But the sun was hot, so {h} gave it more water.]",
        "[In the summer|After many weeks], it became {seed.plant}. [{h} showed it to everyone.|\"It is "
        "beautiful!\" said {g}.|{h} shared it with {f}, {h.his} best friend.]",
    ],
    "honest": [
        "[One day|That day], {h} was playing with {toy.a} in the house. {g.Name} had said, \"Do not "
        "play inside.\" But {h} did not listen.",
        "[Crash!|Bang!|Suddenly there was a loud noise.] {h} broke {broken}. [Pieces were all over "
        "the floor.|{h} did not know what to do.]",
        "[{h.He} hid the pieces {hide}.|{h.He} ran away and hid behind the [door|curtain|fence].|\"Maybe nobody will see "
        "it,\" {h.he} thought.] But {h.he} felt bad [|and could not eat {h.his} {food}].",
        "{g.Name} came [home|in] and asked, \"Who broke {broken.the}?\" [{h} looked at the floor.|For a moment, "
        "{h} said nothing.]",
        "Then {h.he} [said quietly|took a deep breath and said], \"I did it. I am [very|so] sorry.\"",
        "{g.Name} was [not angry|quiet for a while]. \"[Thank you for telling the truth|Things can break, "
        "but the truth is important|I am glad that you told me],\" {g.he} said.",
        "Together they [cleaned up the mess|fixed {broken.the} with glue|picked up the pieces]. "
        "[|After that, {h} always played outside.|{h} felt much better.]",
    ],
    "journey": [
        "[One day|One morning], {h} found an old map {hide}. It showed the way from the {p} to a "
        "treasure {q.at}.",
        "{h} packed some {food} and [started to walk|went on a long trip|left the house]. [|\"I am "
        "going on an adventure!\" {h.he} said.]",
        "[On the way|After a mile|Near a big rock], {h.he} met {f}, {f.a}. {f} was [hungry|cold|lost "
        "and alone]. [{h} gave {f} some {food}.|{h} gave {f} {h.his} warm coat.|"
        "\"Come with me,\" said {h}.]",
        "[\"You are kind. I will show you the way,\" said {f}.|They walked together and sang a song.|They "
        "crossed a bridge and climbed over a wall.]",
        "[Then it became dark, and an owl called.|Then they came to a wide river.|Then they heard a "
        "strange noise.] [\"I am not afraid when we are together,\" said {h}.|{f} found a way, and "
        "they went on.]",
        "At last they came {q.to} and dug a deep hole. There was [a box|a small chest|a bag]! Inside was "
        "{treasure.a}.",
        "[\"It belongs to both of us,\" said {h}.|{h} gave the {treasure} to {f}, because {f.he} had "
        "nothing.|They took the {treasure} home and showed it to {g}.]",
    ],
    "sick": [
        "[That day|On Sunday], {h} went to see {f}, {f.a}. But {f} was [sick|ill] and had to stay in bed. "
        "[\"My head hurts,\" said {f}.|{f.He} looked pale and tired.]",
        "{h} wanted to [help|cheer {f.him} up]. {h.He} went {p.to} and [picked some {color} flowers|"
        "bought some {food}|looked for something nice].",
        "[On the way back, {h.he} met {g}.|Then {h.he} asked {g} for help.] {g.Name} gave {h.him} [a pot of hot "
        "soup|some honey|a warm blanket] for {f}.",
        "{h} sat next to the bed and [read a story about a {color} dragon|sang a song|told a funny story "
        "about a {animal}]. {f} [laughed|smiled a little|closed {f.his} eyes and listened].",
        "\"[I feel better now|You are a real friend|Will you come again tomorrow],\" said {f}. [\"I will "
        "come every day,\" said {h}.|{h} nodded and held {f.his} hand.]",
        "[After three days|The next week], {f} was well again. They [ran outside to play|went {q.to} "
        "together|played with {toy.a}].",
    ],
    "newcomer": [
        "[One day|On Monday], a new [neighbor|child|family] came to the town. {f} was {f.a} who did not "
        "know anyone.",
        "{f} sat alone {p.at} and looked sad. [The others did not talk to {f.him}.|Nobody asked {f.him} "
        "to play.]",
        "{h} [went to {f}|saw {f.him}] and said, \"Hello! My name is {h}. [What is your name?|Do you "
        "want to play with me?]\"",
        "[\"I am {f},\" said {f} in a quiet voice.|\"My name is {f},\" {f.he} said and smiled.] "
        "\"[I have {toy.a}|I know a good place {q.at}|I like {food}],\" said {h}. [\"Me too!\"|\"Can you "
        "show me?\"] said {f}.",
        "So they [went {q.to}|played all afternoon|ran and laughed together]. [|{f} showed {h} {treasure.a} "
        "from {f.his} old home.] [|{h} showed {f} how to {skill}.]",
        "[\"I was so lonely, but now I have a friend,\" said {f}.|In the evening, {g} gave them both "
        "{food}.|\"Will you come back tomorrow?\" asked {h}. \"Yes!\" said {f}.]",
    ],
    "race": [
        "[Every year|In the summer], there was a big race {p.at}. {f}, {f.a}, was very fast. \"[I will "
        "win|Nobody can beat me],\" said {f}.",
        "{h} was not fast. [But {h.he} wanted to try.|\"I will do my best,\" {h.he} said.] [|{f} laughed "
        "at {h.him}.]",
        "\"Ready, set, go!\" {g} called, and they began to run. {f} was far in front.",
        "But then {f} [stopped to eat some {food}|fell over a stone and hurt {f.his} leg|lay down "
        "[under a tree|in the grass] and fell asleep]. {h} [saw it|came along the road].",
        "[{h} could win now, but {h.he} stopped and helped {f}. They crossed the line together.|"
        "{h} ran on, step by step, and never stopped. {h.He} crossed the line first!]",
        "Everyone [cheered|clapped]. {g} gave {h} {treasure.a}. [\"Being kind is more important than "
        "being fast,\" said {g}.|\"You never gave up,\" said {g}.]",
        "\"[I am sorry that I was so proud|You are a good runner|Next time we will train together],\" "
        "said {f}.",
    ],
    "wish": [
        "[One night|That night], {h} could not sleep. {h.He} looked out of the window and saw a falling "
        "star. \"I wish for {toy.a},\" {h.he} whispered.",
        "The next morning, there was no {toy}. [{h} was sad.|\"Stars do not listen,\" {h.he} said.]",
        "{h} went {p.to}. There {h.he} met {f}, {f.a}. {f} was crying because {f.his} {treasure} was "
        "broken.",
        "{h} [fixed it with some string|took it to {g}, who fixed it|gave {f} {h.his} own {treasure}]. "
        "{f} was so [happy|glad] that {f.he} [danced|hugged {h}].",
        "\"I have something for you too,\" said {f}. It was {toy.a}! \"[I do not need it anymore|It is a "
        "gift|You helped me, so it is yours],\" {f.he} said.",
        "[{h} laughed. The star had listened after all.|That night, {h} looked at the sky and said, "
        "\"Thank you, little star.\"]",
    ],
}
