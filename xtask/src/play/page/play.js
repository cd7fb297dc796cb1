"use strict";
(() => {
  const models = JSON.parse(document.getElementById("data").textContent);
  const $ = id => document.getElementById(id);
  const prefersReducedMotion = matchMedia("(prefers-reduced-motion: reduce)");
  const remembered = name => { try { return localStorage.getItem(name); } catch { return null; } };
  const remember = (name, value) => { try { localStorage.setItem(name, value); } catch { /* a page that is opened as a file may not store anything */ } };

  const state = { language: "en", word: words("en"), time: 0, isPlaying: false, last: 0, guess: {}, stage: "ask", right: 0, guesses: 0, views: [], fromEnd: 1, notRecorded: [] };
  const scenarios = [...new Set(models.map(model => model.scenario))];
  const servers = [...new Set(models.map(model => model.server))];
  const model = (scenario, server) => models.find(model => model.scenario === scenario && model.server === server);
  /** Returns the client of the question. It is counted from the end, because the last clients of a scenario are about the same with each server. */
  const subject = (model, fromEnd = state.fromEnd) => model.subjects.at(-fromEnd) ?? model.subjects[0];
  const length = () => Math.max(...state.views.map(view => view.model.length), 1);
  const { happened, millis, named, place } = drawLanes;

  function start() {
    const [scenario, left, right, language] = location.hash.slice(1).split("/");
    setLanguage(language in WORDS ? language : remembered("language") ?? (navigator.language.startsWith("zh") ? "zh" : "en"));
    fill($("scenario"), scenarios.map(name => [name, () => state.word(name)]));
    fill($("left"), servers.map(name => [name, () => name]));
    fill($("right"), [["", () => state.word("none")], ...servers.map(name => [name, () => name])]);
    if (scenarios.includes(scenario)) $("scenario").value = scenario;
    if (servers.includes(left)) $("left").value = left;
    $("right").value = servers.includes(right) ? right : scenario === undefined || scenario === "" ? servers.find(name => name !== $("left").value && name.startsWith("poll")) ?? "" : "";
    for (const id of ["scenario", "left", "right"]) $(id).onchange = choose;
    $("client").onchange = () => { state.fromEnd = Number($("client").value); ask(); };
    $("language").onclick = () => { setLanguage(state.language === "en" ? "zh" : "en"); relabel(); };
    $("guess").onsubmit = guessed;
    $("skip").onclick = () => begin({});
    $("play").onclick = () => state.isPlaying ? pause() : play();
    $("step").onclick = () => step(1);
    $("back").onclick = () => step(-1);
    $("again").onclick = () => { pause(); show(0); };
    $("scrubber").oninput = () => {
      pause();
      show(length() * $("scrubber").value / 1000);
      if ($("scrubber").value === $("scrubber").max) finish();
    };
    addEventListener("resize", () => show(state.time));
    choose();
  }

  function fill(select, options) {
    select.replaceChildren(...options.map(([value, text]) => Object.assign(document.createElement("option"), { value, textContent: text(), told: text })));
  }

  function setLanguage(language) {
    state.language = language;
    state.word = words(language);
    document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
    remember("language", language);
    document.title = state.word("title");
    document.querySelectorAll("[data-word]").forEach(element => element.textContent = state.word(element.dataset.word));
    drawLanes.legend($("marks"), state.word);
  }

  /** Writes all texts again, in the chosen language, and changes nothing else. */
  function relabel() {
    document.querySelectorAll("option").forEach(option => option.told && (option.textContent = option.told()));
    describe();
    address();
    const { time, stage, guess } = state;
    for (const view of state.views) heads(view);
    ask();
    Object.assign(state, { stage, guess });
    for (const input of $("guess").querySelectorAll("input")) input.checked = guess[input.name] === input.value;
    showStage();
    show(time);
  }

  const address = () => history.replaceState(null, "", `#${[$("scenario").value, $("left").value, $("right").value, state.language].join("/")}`);

  /** Shows the chosen scenario and servers. */
  function choose() {
    pause();
    const scenario = $("scenario").value;
    for (const id of ["left", "right"]) {
      for (const option of $(id).options) option.disabled = option.value !== "" && !model(scenario, option.value);
    }
    state.notRecorded = [...new Set([$("left").value, $("right").value])].filter(server => server && !model(scenario, server));
    if (!model(scenario, $("left").value)) $("left").value = models.find(model => model.scenario === scenario).server;
    if (!model(scenario, $("right").value) || $("right").value === $("left").value) $("right").value = "";
    describe();
    address();
    const chosen = [...new Set([$("left").value, $("right").value])].map(server => model(scenario, server)).filter(Boolean);
    state.views = chosen.map((model, place) => view(model, place));
    $("pictures").replaceChildren(...state.views.map(view => view.article));
    $("pictures").classList.toggle("two", chosen.length === 2);
    const subjects = chosen[0].subjects, most = Math.max(...chosen.map(({ subjects }) => subjects.length));
    fill($("client"), Array.from({ length: most }, (_, place) => [String(most - place), () => asked(chosen, most - place)]));
    // An honest client shows best how the architectures differ. In too-many-clients, the last but one is over the limit.
    const honest = subjects.findIndex(client => questions.lane(chosen[0], client).behaviour === "honest");
    state.fromEnd = scenario === "too-many-clients" ? 2 : subjects.length - Math.max(honest, 0);
    $("client").value = String(state.fromEnd);
    ask();
    state.views.forEach(heads);
    show(0);
  }

  /** Returns the client, counted from the end, as text: with both numbers if those of the servers differ. */
  const asked = (models, fromEnd) => state.word("client", [...new Set(models.map(model => subject(model, fromEnd)))].join(" / "));

  /** Says what the chosen servers are, and which choice was replaced. */
  function describe() {
    const notRecorded = server => state.word("not-recorded", server);
    for (const id of ["left", "right"]) {
      $(`${id}-about`).textContent = state.word(`server-${$(id).value}`);
      for (const option of $(id).options) option.title = option.disabled ? notRecorded(option.value) : "";
    }
    $("not-recorded").textContent = state.notRecorded.map(notRecorded).join(" ");
  }

  function view(model, place) {
    const article = $("picture").content.firstElementChild.cloneNode(true);
    const find = name => article.querySelector(`.${name}`);
    const made = { model, article, selected: -1, svg: find("trace"), find };
    made.svg.id = `lanes-${place}`;
    return made;
  }

  /** Writes the texts of a picture that do not change with the time. */
  function heads(view) {
    const { model, find } = view;
    find("server").textContent = model.server;
    find("command").textContent = model.command;
    find("summary").textContent = state.word("table");
    table(view);
    detail(view);
  }

  function table({ model, find }) {
    const word = state.word, cell = text => Object.assign(document.createElement("td"), { textContent: text });
    const row = cells => { const row = document.createElement("tr"); row.append(...cells.map(cell)); return row; };
    const keys = ["lane", "from", "until", "what", "system-call", "line"];
    const head = document.createElement("tr");
    head.append(...keys.map(key => Object.assign(document.createElement("th"), { textContent: word(key), scope: "col" })));
    const threads = model.threads.flatMap(lane => lane.intervals.map(interval => [named(word, lane), millis(interval.from), millis(interval.until),
      drawLanes.describe(word, "thread", interval), interval.call ?? "", place(model.sources[interval.source])]));
    const clients = model.clients.flatMap(lane => [
      ...lane.intervals.map(({ from, until, stay }) => [named(word, lane), millis(from), millis(until), word(`stay-${stay}`), "", "", from]),
      ...lane.events.map(({ at, kind, text }) => [named(word, lane), millis(at), "", happened(word, { kind, text }), "", "", at])].sort((a, b) => a[6] - b[6]).map(cells => cells.slice(0, 6)));
    find("rows").replaceChildren(head, ...threads.map(row), ...clients.map(row));
  }

  /** Asks the question about each server that is shown. */
  function ask() {
    pause();
    Object.assign(state, { stage: "ask", guess: {}, time: 0 });
    const word = state.word;
    $("about").textContent = word(`about-${$("scenario").value}`);
    $("questions").replaceChildren(...state.views.map(({ model }, place) => {
      const set = document.createElement("fieldset");
      const legend = set.appendChild(document.createElement("legend"));
      const client = subject(model), { behaviour } = questions.lane(model, client);
      legend.textContent = word("question", client, model.server);
      const limit = questions.limit(word, model);
      if (limit) set.append(Object.assign(document.createElement("p"), { className: "limit", textContent: limit }));
      for (const outcome of questions.options(model, client)) {
        const label = set.appendChild(document.createElement("label"));
        const input = label.appendChild(document.createElement("input"));
        Object.assign(input, { type: "radio", name: `guess-${place}`, value: outcome });
        label.append(word(`${behaviour}-${outcome}`) || model.work && word(`worked-${outcome}`) || word(`outcome-${outcome}`));
      }
      return set;
    }));
    showStage();
    show(0);
  }

  function guessed(event) {
    event.preventDefault();
    const chosen = [...$("guess").querySelectorAll("input:checked")];
    const isWhole = chosen.length === state.views.length;
    $("missing").textContent = isWhole ? "" : state.word("choose-first");
    if (!isWhole) return;
    begin(Object.fromEntries(chosen.map(input => [input.name, input.value])));
  }

  /** Plays from the start, where the reader sees it. */
  function begin(guess) {
    Object.assign(state, { stage: "play", guess });
    showStage();
    $("play").focus({ preventScroll: true });
    reveal($("transport"), "start");
    play();
  }

  const reveal = (element, block) => element.scrollIntoView({ block, behavior: prefersReducedMotion.matches ? "auto" : "smooth" });

  /** Shows what belongs to the stage: the question, the animation, or the result. */
  function showStage() {
    document.body.dataset.stage = state.stage;
    $("missing").textContent = "";
    $("guess").querySelectorAll("input, #start, #skip").forEach(input => input.disabled = state.stage !== "ask");
    $("transport").disabled = state.stage === "ask";
    const word = state.word;
    $("score").textContent = state.guesses ? word("score", state.right, state.guesses) : "";
    state.views.forEach(({ model, find }, place) => {
      const result = find("result");
      result.hidden = state.stage !== "told";
      if (result.hidden) return;
      const client = subject(model), lane = questions.lane(model, client), guess = state.guess[`guess-${place}`];
      const verdict = guess === undefined ? "no-guess" : guess === lane.outcome ? "right" : "wrong";
      result.dataset.verdict = verdict;
      find("verdict").textContent = word(verdict);
      find("why").replaceChildren(...reasons.why(word, model, client).map(text => Object.assign(document.createElement("p"), { textContent: text })));
    });
  }

  function finish() {
    pause();
    if (state.stage !== "play") return;
    state.stage = "told";
    state.views.forEach(({ model }, place) => {
      const guess = state.guess[`guess-${place}`];
      if (guess === undefined) return;
      state.guesses += 1;
      state.right += guess === questions.lane(model, subject(model)).outcome;
    });
    showStage();
    reveal(state.views[0].find("result"), "nearest");
  }

  function play() {
    if (state.time >= length()) show(0);
    state.isPlaying = true;
    state.last = performance.now();
    $("play").textContent = state.word("pause");
    requestAnimationFrame(frame);
  }

  function pause() {
    state.isPlaying = false;
    $("play").textContent = state.word("play");
  }

  function frame(now) {
    if (!state.isPlaying) return;
    const passed = now - state.last, speed = Number($("speed").value);
    if (prefersReducedMotion.matches) {
      // No motion: one step after the other.
      if (passed > 900 / speed) { state.last = now; step(1, true); }
    } else {
      state.last = now;
      show(Math.min(length(), state.time + passed * speed * length() / WHOLE));
    }
    if (state.time >= length()) finish();
    else requestAnimationFrame(frame);
  }

  /** Moves to the next moment at which something happens, or to the previous one if `direction` is -1. */
  function step(direction, isPlaying) {
    if (!isPlaying) pause();
    const near = length() / 400;
    const moments = state.views.flatMap(({ model }) => [...model.clients.flatMap(lane => lane.events.map(event => event.at)),
      ...model.threads.flatMap(lane => lane.intervals.filter(interval => interval.until - interval.from > length() / 100).map(interval => interval.from))]);
    moments.push(0, length());
    const next = direction > 0
      ? Math.min(...moments.filter(moment => moment > state.time + near)) : Math.max(...moments.filter(moment => moment < state.time - near));
    show(Math.min(Math.max(Number.isFinite(next) ? next : direction > 0 ? length() : 0, 0), length()));
    if (!isPlaying && state.time >= length()) finish();
  }

  function show(time) {
    state.time = time;
    $("scrubber").value = Math.round(1000 * time / length());
    $("scrubber").setAttribute("aria-valuetext", state.word("at", millis(time), millis(length())));
    $("clock").textContent = state.word("at", (time / 1000).toFixed(0), (length() / 1000).toFixed(0));
    for (const view of state.views) {
      const { svg, model } = view;
      view.drawn = drawLanes(svg, model, time, {
        word: state.word, until: length(), selected: view.selected,
        onSelect: place => { view.selected = place; detail(view); show(state.time); },
      });
      svg.setAttribute("aria-label", `${state.word("picture", model.command, millis(time))}. ${state.word("keys")}`);
    }
  }

  /** Explains the marked bar. */
  const detail = ({ article, drawn, selected, model }) => drawLanes.explain(article, drawn?.bars[selected], model.sources, state.word);

  /** Milliseconds that a whole recording takes at speed 1. */
  const WHOLE = 9000;
  start();
})();
