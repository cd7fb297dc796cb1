"use strict";
/*
 * The one renderer of lanes in a page.
 *
 *   drawLanes(svg, model, time, options) -> { bars, height }
 *
 * Draws threads, backlog and clients of a model into an <svg class="trace">, as they are at `time`.
 *
 * model    An object as xtask/src/trace/model.rs documents it. `threads`, `clients`, `length` and `seats` are required.
 *          If it has grown since the last call, `options.revision` must be a new value.
 * time     Microseconds. What comes later is hidden, and a line marks this time.
 * options  word(key, ...values)  the text for a key, in the reader's language (words.js); needed
 *          from, until           the window of time that is as wide as the picture [0, model.length]
 *          revision              any value; a new value means that the model has changed
 *          selected              the index in `bars` of the marked bar, or -1
 *          onSelect(place)       called when the pointer is over a bar, or an arrow key has moved to it
 *
 * bars     All bars in reading order: { kind: "thread" | "client", lane, interval, y }.
 *
 *   drawLanes.explain(article, bar, sources, word)
 *
 * Writes into the elements .detail and .source of an article what a bar shows, and the source line that belongs to it.
 */
const drawLanes = (() => {
  const NS = "http://www.w3.org/2000/svg";
  const MARGIN = 10, LABEL = 25, BAR = 20, BAND = 8, GAP = 6, HEADING = 26, AXIS = 24, SEAT = 24, COLOURS = 8;
  const ASLEEP = new Set(["accept", "recv", "poll", "thread", "other", "waits-to-send"]);
  const drawn = new WeakMap();

  const element = (name, attributes, text) => {
    const made = document.createElementNS(NS, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const colour = client => (client - 1) % COLOURS + 1;
  const at = (intervals, time) => intervals.find(interval => interval.from <= time && time < interval.until);

  function draw(svg, model, time, options) {
    const width = Math.max(240, Math.round(svg.clientWidth || svg.parentElement.clientWidth || 240));
    const from = options.from ?? 0, until = Math.max(options.until ?? model.length, from + 1);
    const key = [width, from, until, options.revision, options.word("language")].join();
    let state = drawn.get(svg);
    if (!state || state.model !== model || state.key !== key) {
      state = build(svg, model, { ...options, width, from, until }, key);
      drawn.set(svg, state);
    }
    update(state, Math.min(time, until), options);
    return state;
  }

  function build(svg, model, options, key) {
    const { word, width, from, until } = options;
    const x = time => MARGIN + (width - 2 * MARGIN) * (Math.min(Math.max(time, from), until) - from) / (until - from);
    const id = svg.id;
    const state = { model, key, x, bars: [], labels: [], seats: [], height: 0 };
    svg.replaceChildren(patterns(id));
    const grid = svg.appendChild(element("g", {}));
    const clip = element("rect", { x: 0, y: 0, height: 1e4, width: 0 });
    svg.querySelector("defs").appendChild(element("clipPath", { id: `${id}-past` })).appendChild(clip);
    const texts = svg.appendChild(element("g", {}));
    const marks = svg.appendChild(element("g", { "clip-path": `url(#${id}-past)` }));
    // Labels are drawn last, so that no line crosses them.
    const labels = svg.appendChild(element("g", {}));
    let y = model.drained === undefined ? 0 : 12;
    const top = y + HEADING;
    const heading = text => labels.appendChild(element("text", { class: "heading label", x: MARGIN, y: (y += HEADING) - 6 }, text));
    const lane = (kind, model, name) => {
      const label = labels.appendChild(element("text", { class: "label", x: MARGIN, y: (y += LABEL) - 10 }));
      label.appendChild(element("tspan", { class: "name" }, name));
      const told = label.appendChild(element("tspan", { class: "soft", dx: 8 }));
      state.labels.push({ kind, model, told, room: width - 2 * MARGIN - 8 - 8 * wide(name) });
      texts.appendChild(element("path", { class: "base", d: `M${MARGIN} ${y + BAR}H${width - MARGIN}` }));
      for (const interval of model.intervals) {
        if (interval.until <= from || interval.from >= until) continue;
        bar(kind, model, interval, x(interval.from), x(interval.until));
      }
      (kind === "client" ? pins(model) : sends(model)).forEach(([time, client]) => pin(x(time), client));
      y += BAR + GAP;
    };
    const bar = (kind, lane, interval, left, right) => {
      const [top, height, attributes] = kind === "thread" ? thread(id, interval) : client(id, lane, interval);
      const isThin = !ASLEEP.has(interval.activity) && interval.stay !== "idle";
      const shown = Math.max(right - left, isThin ? 1.6 : .4);
      const place = state.bars.length;
      marks.appendChild(element("rect", { x: left.toFixed(2), y: y + top, width: shown.toFixed(2), height, ...attributes }));
      const text = inside(word, kind, interval, shown);
      if (text) marks.appendChild(element("text", { class: "inside mid", x: ((left + right) / 2).toFixed(1), y: y + (height < BAR ? BAR - BAND - 4 : BAR - 5) }, text));
      // The area that reacts to the pointer is as tall as the lane.
      const target = element("rect", { x: left.toFixed(2), y, width: Math.max(shown, 3).toFixed(2), height: BAR, fill: "transparent", "data-bar": place });
      marks.appendChild(target);
      state.bars.push({ kind, lane, interval, y, left, right: left + shown });
    };
    const pin = (x, client) => {
      marks.appendChild(element("path", { class: `s${colour(client)}`, d: `M${x.toFixed(1)} ${y + BAR}V${y - 3}` }));
      marks.appendChild(element("circle", { class: `head c${colour(client)}`, cx: x.toFixed(1), cy: y - 3, r: 3 }));
    };

    heading(word("threads"));
    model.threads.forEach(thread => lane("thread", thread, named(word, thread)));
    heading(word("backlog", model.seats));
    const most = Math.min(model.seats, model.clients.length, Math.floor((width - 2 * MARGIN) / (SEAT + 4)));
    for (let seat = 0; seat < most; seat++) {
      const left = MARGIN + seat * (SEAT + 4);
      const box = texts.appendChild(element("rect", { class: "seat", x: left, y: y + 2, width: SEAT, height: SEAT, rx: 4 }));
      const number = texts.appendChild(element("text", { class: "figure mid", x: left + SEAT / 2, y: y + SEAT - 5 }));
      state.seats.push({ box, number });
    }
    if (most < model.seats) texts.appendChild(element("text", { class: "soft", x: MARGIN + most * (SEAT + 4) + 2, y: y + SEAT - 5 }, "…"));
    y += SEAT + GAP;
    heading(word("clients"));
    model.clients.forEach(client => lane("client", client, named(word, client)));

    axis(grid, x, from, until, width, top, y);
    if (model.drained !== undefined) {
      marks.appendChild(element("path", { class: "signal", d: `M${x(model.drained)} 14V${y}` }));
      const isLeft = x(model.drained) < width - 80;
      marks.appendChild(element("text", { class: "tiny signalled", x: x(model.drained) + (isLeft ? -2 : 2), y: 11, "text-anchor": isLeft ? "start" : "end" }, "SIGTERM"));
    }
    state.height = y + AXIS;
    state.clip = clip;
    state.mark = svg.appendChild(element("rect", { class: "mark", height: BAR + 6, rx: 3, visibility: "hidden" }));
    state.line = svg.appendChild(element("path", { class: "now" }));
    Object.assign(state, { top, bottom: y });
    svg.setAttribute("viewBox", `0 0 ${width} ${state.height}`);
    svg.style.height = `${state.height}px`;
    listen(svg, state);
    return state;
  }

  function update(state, time, options) {
    const { word } = options, { model, x } = state;
    state.clip.setAttribute("width", x(time).toFixed(2));
    state.line.setAttribute("d", `M${x(time).toFixed(2)} ${state.top - 4}V${state.bottom}`);
    for (const { kind, model, told, room } of state.labels) {
      const interval = at(model.intervals, time);
      const most = Math.floor(room / 7.2);
      const last = kind === "client" && model.events.filter(event => event.at <= time).at(-1);
      let text = !interval ? last ? happened(word, last) : "" : describe(word, kind, interval);
      if (wide(text) > most) text = !interval ? "" : shorter(word, kind, interval);
      if (wide(text) > most) text = "";
      told.textContent = text;
    }
    const waiting = model.clients.filter(client => at(client.intervals, time)?.stay === "backlog");
    state.seats.forEach(({ box, number }, seat) => {
      const client = waiting[seat];
      number.textContent = client ? client.client : "";
      box.setAttribute("class", client ? `seat taken s${colour(client.client)}` : "seat");
    });
    const bar = state.bars[options.selected ?? -1];
    state.mark.setAttribute("visibility", bar ? "visible" : "hidden");
    if (bar) {
      for (const [key, value] of Object.entries({ x: bar.left - 2, y: bar.y - 3, width: Math.max(bar.right - bar.left, 2) + 4 })) state.mark.setAttribute(key, value);
    }
    state.onSelect = options.onSelect;
    state.selected = options.selected ?? -1;
    state.time = time;
  }

  /** Returns how to draw a bar of a thread: its offset from the top of the lane, its height, and its attributes. */
  function thread(id, { activity, client }) {
    const paint = client ? { fill: `url(#${id}-client-${colour(client)})` } : { class: "nothing" };
    const band = [BAR - BAND, BAND];
    switch (activity) {
      case "send": case "work": return [0, BAR, paint];
      case "recv": case "waits-to-send": return [...band, { ...paint, opacity: ".6" }];
      case "accept": return [...band, { class: "accept" }];
      case "poll": return [...band, { class: "poll" }];
      default: return [BAR - 2, 2, { class: "thread" }];
    }
  }

  function client(id, lane, { stay }) {
    const hue = colour(lane.client);
    switch (stay) {
      case "connecting": return [2, BAR - 4, { class: `connecting s${hue}` }];
      case "backlog": return [0, BAR, { class: `backlog s${hue}`, fill: `url(#${id}-backlog-${hue})` }];
      case "answer": return [0, BAR, { fill: `url(#${id}-client-${hue})` }];
      case "sending": case "not-reading": return [BAR - BAND, BAND, { class: `c${hue}` }];
      default: return [BAR - 2, 2, { class: `c${hue}` }];
    }
  }

  const pins = lane => lane.events.filter(event => event.kind === "answered").map(event => [event.at, lane.client]);
  const sends = lane => lane.intervals.filter(({ activity, client }) => activity === "send" && client).map(({ until, client }) => [until, client]);
  /** Returns the width of a text in characters; a Chinese character counts as nearly two. */
  const wide = text => [...text].reduce((sum, c) => sum + (c > "\u2e80" ? 1.9 : 1), 0);

  const millis = time => time >= 10000 ? (time / 1000).toFixed(0) : (time / 1000).toFixed(1);
  const place = source => source ? `${source.file}:${source.line}` : "";

  /** Returns what a client did or received, in words. */
  function happened(word, { kind, text }) {
    return word(`kind-${kind}`, text ? `“${text}”` : "").trim();
  }

  /** Returns the name of a lane, in the reader's language. */
  function named(word, { name, client }) {
    if (client) return word("client", client);
    const [, own, process, isParent, number] = name.match(/^(.+?)(?: of process (\d+)| of (the parent))?(?: \(no\. (\d+)\))?$/);
    // The name alone would read as that of a client.
    if (own === "client" && !process) return word("for-a-client", number ?? 1);
    if (process && !number && /^(main$|zen-)/.test(own)) return word("a-process", process);
    const whole = process ? word("of-process", own, process) : isParent ? word("of-parent", own) : own;
    return number ? word("namesake", whole, number) : whole;
  }

  function explain(article, bar, sources, word) {
    const find = name => article.querySelector(`.${name}`), source = sources[bar?.interval.source];
    find("source").hidden = !source;
    find("place").textContent = place(source);
    find("code").textContent = source?.text ?? "";
    if (!bar) {
      find("detail").textContent = word("hint");
      return;
    }
    const { kind, lane, interval, interval: { from, until, call, calls } } = bar;
    const parts = [word("detail", named(word, lane), describe(word, kind, interval)), word("for", millis(until - from), millis(from), millis(until))];
    if (call) parts.push(word(calls > 1 ? "calls" : "call", call, calls - 1));
    find("detail").textContent = parts.join(" · ");
  }

  /** Returns what a lane does, in a few words. */
  function describe(word, kind, interval) {
    if (kind === "client") return word(`stay-${interval.stay}`);
    return interval.client ? word(`${activity(interval)}-for`, interval.client) : word(activity(interval));
  }
  const shorter = (word, kind, interval) => word(kind === "client" ? `stay-${interval.stay}-short` : `${activity(interval)}-short`);
  /** Returns the key of an activity. The model does not tell epoll_wait() from io_uring_enter(). */
  const activity = interval => interval.call === "io_uring_enter" ? "ring" : interval.activity;

  function inside(word, kind, interval, room) {
    const isBusy = kind === "thread" && !ASLEEP.has(interval.activity);
    if (isBusy) return interval.client && room > 14 ? String(interval.client) : "";
    const texts = [describe(word, kind, interval), shorter(word, kind, interval)];
    return kind === "thread" ? texts.find(text => wide(text) * 6.6 + 12 < room) ?? "" : "";
  }

  function axis(grid, x, from, until, width, top, y) {
    const steps = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000].map(step => step * 1000);
    const step = steps.find(step => (until - from) / step <= (width - 2 * MARGIN) / 72) ?? until - from;
    const [unit, name] = step < 500e3 ? [1e3, "ms"] : [1e6, "s"];
    for (let time = Math.ceil(from / step) * step; time <= until; time += step) {
      const place = x(time), isLast = time + step > until;
      grid.appendChild(element("path", { class: "grid", d: `M${place.toFixed(1)} ${top}V${y}` }));
      const anchor = time === from ? "start" : width - place < 30 ? "end" : "middle";
      grid.appendChild(element("text", { class: "soft tiny", x: place.toFixed(1), y: y + 16, "text-anchor": anchor }, isLast ? `${time / unit} ${name}` : time / unit));
    }
  }

  function patterns(id) {
    const defs = element("defs", {});
    for (let client = 1; client <= COLOURS; client++) {
      const drawn = [`<rect class="paper" width="2" height="2"/><rect class="paper" x="3" y="3" width="2" height="2"/>`, "",
        `<rect class="paper" width="2" height="6"/>`, `<circle class="paper" cx="3" cy="3" r="1.5"/>`][client % 4];
      defs.innerHTML += `<pattern id="${id}-client-${client}" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">
        <rect class="c${client}" width="6" height="6"/>${drawn}</pattern>
        <pattern id="${id}-backlog-${client}" width="9" height="9" patternUnits="userSpaceOnUse" patternTransform="rotate(-45)">
        <rect class="c${client}" width="1.5" height="9"/></pattern>`;
    }
    return defs;
  }

  /** Makes the picture reachable with the Tab key. Arrow keys move from bar to bar and from lane to lane. */
  function listen(svg, state) {
    svg.setAttribute("tabindex", "0");
    svg.onpointermove = event => {
      const bar = event.target.dataset?.bar;
      if (bar !== undefined && Number(bar) !== state.selected) state.onSelect?.(Number(bar));
    };
    svg.onkeydown = event => {
      const visible = state.bars.map((bar, place) => ({ ...bar, place })).filter(bar => bar.interval.from <= state.time);
      const now = state.bars[state.selected];
      const own = visible.filter(bar => bar.lane === now?.lane);
      const lanes = [...new Set(visible.map(bar => bar.lane))];
      const move = step => visible.filter(bar => bar.lane === lanes[lanes.indexOf(now.lane) + step])
        .sort((a, b) => Math.abs(a.interval.from - now.interval.from) - Math.abs(b.interval.from - now.interval.from))[0];
      const wishes = {
        ArrowRight: () => own[own.findIndex(bar => bar.place === state.selected) + 1],
        ArrowLeft: () => own[own.findIndex(bar => bar.place === state.selected) - 1],
        ArrowDown: () => move(1), ArrowUp: () => move(-1),
      };
      if (!(event.key in wishes)) return;
      event.preventDefault();
      const next = now ? wishes[event.key]() : visible[0];
      if (next) state.onSelect?.(next.place);
    };
  }

  /** Fills a list with what the marks mean. */
  function legend(list, word) {
    const marks = { work: thread("legend", { activity: "work", client: 1 }), recv: thread("legend", { activity: "recv", client: 1 }),
      accept: thread("legend", { activity: "accept" }), poll: thread("legend", { activity: "poll" }), thread: thread("legend", { activity: "thread" }),
      backlog: client("legend", { client: 2 }, { stay: "backlog" }), connecting: client("legend", { client: 2 }, { stay: "connecting" }),
      answer: client("legend", { client: 2 }, { stay: "answer" }), idle: client("legend", { client: 2 }, { stay: "idle" }),
      sending: client("legend", { client: 2 }, { stay: "sending" }), "no-client": thread("legend", { activity: "work" }) };
    const sample = (svg, text) => {
      const item = list.appendChild(document.createElement("li"));
      svg.setAttribute("aria-hidden", "true");
      item.append(svg, text);
    };
    list.replaceChildren();
    for (const [name, [top, height, attributes]] of Object.entries(marks)) {
      const svg = element("svg", { class: "trace", viewBox: "0 0 76 20" });
      if (name === "work") svg.appendChild(patterns("legend"));
      svg.appendChild(element("rect", { x: 1, y: top + (height === BAR ? 1 : 0), width: 74, height: Math.min(height, BAR - 2), ...attributes }));
      sample(svg, word(`legend-${name}`));
    }
    const svg = element("svg", { class: "trace", viewBox: "0 0 76 20" });
    svg.appendChild(element("path", { class: "s1", d: "M38 20V5" }));
    svg.appendChild(element("circle", { class: "head c1", cx: 38, cy: 5, r: 3 }));
    sample(svg, word("legend-pin"));
    const signal = element("svg", { class: "trace", viewBox: "0 0 76 20" });
    signal.appendChild(element("path", { class: "signal", d: "M38 0V20" }));
    sample(signal, word("legend-signal"));
  }

  const isAsleep = interval => ASLEEP.has(interval.activity);
  return Object.assign(draw, { describe, explain, happened, isAsleep, legend, millis, named, place });
})();
