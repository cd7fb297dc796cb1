/* The live page: it hears what the threads and the clients do, keeps the last seconds, and asks for actions. */
(() => {
  const $ = id => document.getElementById(id);
  const BEHAVIOURS = ["honest", "silent", "dripping", "never-reading", "pipelining", "half-question"];
  const COUNTERS = ["answers", "waiting", "processor", "processes", "threads", "memory"];
  const ENDINGS = ["left", "ended", "reset", "rejected", "refused"], WAITS = ["connecting", "backlog", "answer"];
  /** Microseconds that the picture shows, and the longest look at a deadline: it does not interrupt a wait. */
  const WINDOW = 10e6, MOMENT = 20e3;

  const { named, place } = drawLanes;
  const lanes = { thread: new Map(), client: new Map() };
  let word, heard, selected, drawn = 0, cost = 0;

  function start() {
    for (const name of COUNTERS) {
      const [pair, term, value] = ["div", "dt", "dd"].map(name => document.createElement(name));
      term.dataset.word = `count-${name}`;
      value.id = `count-${name}`;
      pair.append(term, value);
      $("counters").append(pair);
    }
    for (const behaviour of BEHAVIOURS) {
      const add = button(() => act({ do: "add", behaviour }));
      add.dataset.word = `client-${behaviour}`;
      add.id = `add-${behaviour}`;
      $("add").append(add);
    }
    $("server").onchange = () => act({ do: "swap", server: $("server").value });
    $("stop").onclick = () => act({ do: "stop" });
    $("language").onclick = () => speak(word("language") === "en" ? "zh" : "en");
    speak(navigator.language.startsWith("zh") ? "zh" : "en");
    const events = new EventSource("events");
    events.onmessage = ({ data }) => { hear(JSON.parse(data)); show(); };
    events.onerror = () => notify(word("lost"));
  }

  function speak(language) {
    word = words(language);
    document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
    document.title = word("live-title");
    document.querySelectorAll("[data-word]").forEach(element => element.textContent = word(element.dataset.word));
    drawLanes.legend($("marks"), word);
    $("clients").replaceChildren();
    if (!heard) return;
    show();
    draw();
  }

  function hear(news) {
    // Another server: its time begins again.
    if (heard && news.now < heard.now) Object.values(lanes).forEach(lanes => lanes.clear());
    heard = news;
    news.threads.forEach(lane => extend(lanes.thread, lane.thread, lane));
    news.clients.forEach(lane => extend(lanes.client, lane.client, lane));
    for (const [number, lane] of lanes.thread) {
      if (!lane.intervals.some(interval => interval.until > news.now - WINDOW)) lanes.thread.delete(number);
    }
    const isHere = new Set(news.clients.map(lane => lane.client));
    for (const number of lanes.client.keys()) if (!isHere.has(number) && !news.is_starting) lanes.client.delete(number);
  }

  /** Adds what is new to a lane. It takes the place of what the lane has from the first of it on. */
  function extend(lanes, number, { intervals, events = [], ...names }) {
    const lane = Object.assign(lanes.get(number) ?? { intervals: [], events: [], answers: 0 }, names);
    const from = intervals[0]?.from ?? heard.now;
    while (lane.intervals.at(-1)?.from >= from) lane.intervals.pop();
    if (lane.intervals.at(-1)?.until > from) lane.intervals.at(-1).until = from;
    lane.intervals = [...lane.intervals, ...intervals].filter(interval => interval.until > heard.now - WINDOW);
    lane.events = [...lane.events, ...events].filter(event => event.at > heard.now - WINDOW);
    for (const { kind, count = 0 } of events) {
      if (kind === "answered") lane.answers += count;
      if (ENDINGS.includes(kind)) lane.ending = kind;
    }
    lane.state = state(lane);
    lanes.set(number, lane);
  }

  /** What a lane does now, and since when. */
  function state({ intervals, state: before }) {
    const key = ({ activity, stay, client }) => `${activity ?? stay} ${client}`;
    const last = intervals.at(-1);
    if (!last || last.until < heard.now - MOMENT) {
      return { since: before && !before.interval ? before.since : last?.until ?? heard.now };
    }
    let since = last.from, { from } = last;
    for (const interval of intervals.slice(0, -1).reverse()) {
      const isSame = key(interval) === key(last), isLook = interval.activity === "work" && interval.until - interval.from < MOMENT;
      if (!isSame && !isLook || from - interval.until > MOMENT) break;
      from = interval.from;
      if (isSame) since = from;
    }
    // What began before the picture is remembered.
    const goesOn = before?.interval && key(before.interval) === key(last) && since <= heard.now - WINDOW + MOMENT;
    return { interval: last, since: goesOn ? Math.min(before.since, since) : since };
  }

  function show() {
    const does = (kind, { state: { interval } }) => interval ? drawLanes.describe(word, kind, interval) : word("away");
    const since = ({ state }) => word("seconds", (Math.max(0, heard.now - state.since) / 1e6).toFixed(1));
    rows($("threads"), lanes.thread, (_, lane) => [named(word, lane), does("thread", lane), since(lane), place(heard.sources[lane.state.interval?.source])]);
    rows($("clients"), lanes.client, (number, lane) => [String(number), () => removal(number), word(`client-${lane.behaviour}`), does("client", lane), since(lane),
      String(lane.answers), lane.ending ? word(`end-${lane.ending}`) : "–"]);
    const { answers_per_second, processors, processes, threads, memory } = heard.counters;
    const waiting = [...lanes.client.values()].filter(lane => WAITS.includes(lane.state.interval?.stay)).length;
    const values = [answers_per_second.toFixed(0), waiting, `${(100 * processors).toFixed(1)} %`, processes, threads, `${(memory / 2 ** 20).toFixed(1)} MiB`];
    COUNTERS.forEach((name, place) => $(`count-${name}`).textContent = values[place]);
    if (document.activeElement !== $("server")) $("server").value = heard.server;
    if (heard.is_starting) notify(word("starting", heard.server));
    else if (heard.error) notify(heard.error);
    else if ($("notice").textContent === word("starting", heard.server)) notify("");
    // A picture with hundreds of lanes is drawn less often.
    if (performance.now() - drawn > 4 * cost) draw();
  }

  function draw() {
    const begun = performance.now();
    const model = { threads: [...lanes.thread.values()], clients: [...lanes.client.values()], length: heard.now, seats: heard.seats };
    const options = { word, from: Math.max(0, heard.now - WINDOW), until: Math.max(WINDOW, heard.now), revision: heard.now };
    // The moment before the end, since at the end no interval lasts any more.
    const { bars } = drawLanes($("lanes"), model, heard.now - 1, options);
    // What is marked leaves the picture; then the newest bar of its lane is marked.
    const isAt = ({ lane, interval }) => lane === selected?.lane && interval.from <= selected.at && selected.at < interval.until;
    const marked = bars.some(isAt) ? bars.findIndex(isAt) : bars.findLastIndex(({ lane }) => lane === selected?.lane);
    const onSelect = bar => { selected = { lane: bars[bar].lane, at: bars[bar].interval.from }; draw(); };
    drawLanes($("lanes"), model, heard.now - 1, { ...options, selected: marked, onSelect });
    $("lanes").setAttribute("aria-label", `${word("live-picture", heard.server)}. ${word("keys")}`);
    drawLanes.explain(document.querySelector("article"), bars[marked], heard.sources, word);
    [drawn, cost] = [performance.now(), performance.now() - begun];
  }

  /** Gives a table a row for each lane, and keeps the rows that are there: a button in one may have the focus. */
  function rows(table, lanes, cells) {
    const old = new Map([...table.rows].map(row => [row.dataset.number, row]));
    for (const [number, lane] of lanes) {
      const row = old.get(String(number)) ?? table.insertRow();
      old.delete(String(number));
      row.dataset.number = number;
      cells(number, lane).forEach((content, place) => {
        const cell = row.cells[place] ?? row.insertCell();
        if (typeof content === "function") cell.firstChild ?? cell.append(content());
        else if (cell.textContent !== content) cell.textContent = content;
      });
    }
    old.forEach(row => row.remove());
  }

  function removal(number) {
    return Object.assign(button(() => act({ do: "remove", client: number })), { textContent: word("remove", number) });
  }

  function button(onclick) {
    return Object.assign(document.createElement("button"), { type: "button", onclick });
  }

  function notify(text) {
    if ($("notice").textContent !== text) $("notice").textContent = text;
  }

  async function act(action) {
    try {
      const answer = await fetch("actions", { method: "POST", body: JSON.stringify(action) });
      notify(answer.ok ? "" : await answer.text());
    } catch {
      notify(word("lost"));
    }
  }

  start();
})();
