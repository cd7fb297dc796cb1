/* The live page: it receives what the threads and the clients do, keeps the last seconds, and requests actions. */
(() => {
  const $ = id => document.getElementById(id);
  const BEHAVIOURS = ["honest", "silent", "dripping", "never-reading", "pipelining", "half-question"];
  const COUNTERS = ["answers", "waiting", "processor", "processes", "threads", "memory"];
  const ENDINGS = ["left", "ended", "reset", "rejected", "refused"], WAITS = ["connecting", "backlog", "answer"];
  /** In microseconds: the time that the picture shows, and the longest wake-up that does not count as the end of a wait. */
  const WINDOW = 10e6, MOMENT = 20e3;

  const { named, place } = drawLanes;
  const lanes = { thread: new Map(), client: new Map() };
  let word, latest, selected, drawn = 0, cost = 0;

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
    $("language").onclick = () => setLanguage(word("language") === "en" ? "zh" : "en");
    setLanguage(navigator.language.startsWith("zh") ? "zh" : "en");
    const events = new EventSource("events");
    events.onmessage = ({ data }) => { receive(JSON.parse(data)); show(); };
    events.onerror = () => notify(word("lost"));
  }

  function setLanguage(language) {
    word = words(language);
    document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
    document.title = word("live-title");
    document.querySelectorAll("[data-word]").forEach(element => element.textContent = word(element.dataset.word));
    drawLanes.legend($("marks"), word);
    $("clients").replaceChildren();
    if (!latest) return;
    show();
    draw();
  }

  function receive(news) {
    // A new server has been started, whose time begins at 0.
    if (latest && news.now < latest.now) Object.values(lanes).forEach(lanes => lanes.clear());
    latest = news;
    news.threads.forEach(lane => extend(lanes.thread, lane.thread, lane));
    news.clients.forEach(lane => extend(lanes.client, lane.client, lane));
    for (const [number, lane] of lanes.thread) {
      if (!lane.intervals.some(interval => interval.until > news.now - WINDOW)) lanes.thread.delete(number);
    }
    const isHere = new Set(news.clients.map(lane => lane.client));
    for (const number of lanes.client.keys()) if (!isHere.has(number) && !news.is_starting) lanes.client.delete(number);
  }

  /** Adds new intervals and events to a lane. The intervals replace those that the lane has from the start of the first one on. */
  function extend(lanes, number, { intervals, events = [], ...names }) {
    const lane = Object.assign(lanes.get(number) ?? { intervals: [], events: [], answers: 0 }, names);
    const from = intervals[0]?.from ?? latest.now;
    while (lane.intervals.at(-1)?.from >= from) lane.intervals.pop();
    if (lane.intervals.at(-1)?.until > from) lane.intervals.at(-1).until = from;
    lane.intervals = [...lane.intervals, ...intervals].filter(interval => interval.until > latest.now - WINDOW);
    lane.events = [...lane.events, ...events].filter(event => event.at > latest.now - WINDOW);
    for (const { kind, count = 0 } of events) {
      if (kind === "answered") lane.answers += count;
      if (ENDINGS.includes(kind)) lane.ending = kind;
    }
    lane.state = state(lane);
    lanes.set(number, lane);
  }

  /** Returns what a lane does now, and since when. */
  function state({ intervals, state: before }) {
    const key = ({ activity, stay, client }) => `${activity ?? stay} ${client}`;
    const last = intervals.at(-1);
    if (!last || last.until < latest.now - MOMENT) {
      return { since: before && !before.interval ? before.since : last?.until ?? latest.now };
    }
    let since = last.from, { from } = last;
    for (const interval of intervals.slice(0, -1).reverse()) {
      const isSame = key(interval) === key(last), isLook = interval.activity === "work" && interval.until - interval.from < MOMENT;
      if (!isSame && !isLook || from - interval.until > MOMENT) break;
      from = interval.from;
      if (isSame) since = from;
    }
    // The picture has forgotten the start of a long wait, so it is taken from the previous state.
    const goesOn = before?.interval && key(before.interval) === key(last) && since <= latest.now - WINDOW + MOMENT;
    return { interval: last, since: goesOn ? Math.min(before.since, since) : since };
  }

  function show() {
    const does = (kind, { state: { interval } }) => interval ? drawLanes.describe(word, kind, interval) : word("away");
    const since = ({ state }) => word("seconds", (Math.max(0, latest.now - state.since) / 1e6).toFixed(1));
    rows($("threads"), lanes.thread, (_, lane) => [named(word, lane), does("thread", lane), since(lane), place(latest.sources[lane.state.interval?.source])]);
    rows($("clients"), lanes.client, (number, lane) => [String(number), () => removal(number), word(`client-${lane.behaviour}`), does("client", lane), since(lane),
      String(lane.answers), lane.ending ? word(`end-${lane.ending}`) : "–"]);
    const { answers_per_second, processors, processes, threads, memory } = latest.counters;
    const waiting = [...lanes.client.values()].filter(lane => WAITS.includes(lane.state.interval?.stay)).length;
    const values = [answers_per_second.toFixed(0), waiting, `${(100 * processors).toFixed(1)} %`, processes, threads, `${(memory / 2 ** 20).toFixed(1)} MiB`];
    COUNTERS.forEach((name, place) => $(`count-${name}`).textContent = values[place]);
    if (document.activeElement !== $("server")) $("server").value = latest.server;
    if (latest.is_starting) notify(word("starting", latest.server));
    else if (latest.error) notify(latest.error);
    else if ($("notice").textContent === word("starting", latest.server)) notify("");
    // A picture with hundreds of lanes is drawn less often.
    if (performance.now() - drawn > 4 * cost) draw();
  }

  function draw() {
    const begun = performance.now();
    const model = { threads: [...lanes.thread.values()], clients: [...lanes.client.values()], length: latest.now, seats: latest.seats };
    const options = { word, from: Math.max(0, latest.now - WINDOW), until: Math.max(WINDOW, latest.now), revision: latest.now };
    // One microsecond before the end, because every interval is over at the end itself.
    const { bars } = drawLanes($("lanes"), model, latest.now - 1, options);
    // When the marked bar has left the picture, the newest bar of its lane is marked.
    const isAt = ({ lane, interval }) => lane === selected?.lane && interval.from <= selected.at && selected.at < interval.until;
    const marked = bars.some(isAt) ? bars.findIndex(isAt) : bars.findLastIndex(({ lane }) => lane === selected?.lane);
    const onSelect = bar => { selected = { lane: bars[bar].lane, at: bars[bar].interval.from }; draw(); };
    drawLanes($("lanes"), model, latest.now - 1, { ...options, selected: marked, onSelect });
    $("lanes").setAttribute("aria-label", `${word("live-picture", latest.server)}. ${word("keys")}`);
    drawLanes.explain(document.querySelector("article"), bars[marked], latest.sources, word);
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
