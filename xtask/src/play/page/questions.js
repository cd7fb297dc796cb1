"use strict";
/* Derives from a recording the question that is asked before the animation, and the reasons for the right answer. */
const questions = (() => {
  const LIKELY = {
    "honest": ["answered-at-once", "answered-late", "rejected", "closed"],
    "silent": ["closed", "reset", "nothing", "rejected"],
    "dripping": ["closed", "answered-late", "reset", "answered-at-once"],
    "never-reading": ["reset", "closed", "nothing", "rejected"],
    "pipelining": ["answered-together", "answered-at-once", "rejected", "reset"],
    "half-question": ["answered-then-closed", "closed", "reset", "nothing"],
  };
  /** What a client may see while a server drains. */
  const WHILE_DRAINING = ["answered-then-closed", "closed", "refused", "reset"];

  const lane = (model, client) => model.clients.find(lane => lane.client === client);

  /** Returns the outcomes to choose from. The right one is among them; their order is the same each time. */
  function options(model, client) {
    const { behaviour, outcome } = lane(model, client);
    const likely = model.scenario === "draining" ? WHILE_DRAINING : LIKELY[behaviour] ?? LIKELY.honest;
    const chosen = likely.includes(outcome) ? likely : [outcome, ...likely.slice(0, 3)];
    const turn = [...model.scenario + model.server + client].reduce((sum, c) => sum + c.charCodeAt(0), 0);
    return chosen.map((_, place) => chosen[(place + turn) % chosen.length]);
  }

  const { millis, named, place } = drawLanes;

  /** Returns the time at which the outcome for a client was certain. */
  function decisive(lane) {
    const ends = { "rejected": "rejected", "closed": "ended", "reset": "reset", "refused": "refused" };
    const kind = ends[lane.outcome] ?? "answered";
    return (lane.events.find(event => event.kind === kind) ?? lane.events.at(-1)).at;
  }

  /** Returns what each thread did between two times, and for how long altogether: the longest first. */
  function during(model, from, until) {
    const spent = new Map();
    for (const thread of model.threads) {
      for (const interval of thread.intervals) {
        const time = Math.min(interval.until, until) - Math.max(interval.from, from);
        if (time <= 0) continue;
        const key = [thread.thread, interval.activity, interval.client].join();
        const entry = spent.get(key) ?? { thread, interval, time: 0 };
        entry.time += time;
        // The longest interval represents them all.
        if (interval.until - interval.from > entry.interval.until - entry.interval.from) entry.interval = interval;
        spent.set(key, entry);
      }
    }
    return [...spent.values()].sort((a, b) => b.time - a.time);
  }

  /** Returns the sentences that say what a client saw and why. */
  function why(word, model, client) {
    const own = lane(model, client), came = own.intervals[0]?.from ?? 0, end = decisive(own);
    const sentences = [word(`saw-${own.outcome}`, client, millis(end - came))];
    const spent = during(model, came, end), others = spent.filter(({ interval }) => interval.client && interval.client !== client);
    if (own.outcome === "answered-late") {
      const isFree = spent.some(({ interval, time }) => ["accept", "poll", "other"].includes(interval.activity) && time > (end - came) / 2);
      const [longest] = others;
      if (own.intervals.some(({ stay }) => stay === "connecting")) sentences.push(word("why-connecting"));
      else if (isFree && model.scenario === "no-descriptors") sentences.push(word("why-no-descriptors"));
      else if (longest) {
        const { thread, interval, time } = longest, source = model.sources[interval.source];
        sentences.push(word(drawLanes.isAsleep(interval) ? "meanwhile" : "meanwhile-busy", millis(time), named(word, thread), drawLanes.describe(word, "thread", interval)));
        if (source) sentences.push(word("where", place(source)));
      }
    }
    const serves = model.threads.find(thread => thread.intervals.some(({ activity, client: of }) => activity === "send" && of === client));
    if (own.outcome === "answered-at-once" && serves) {
      sentences.push(word("served-by", named(word, serves), client));
      const other = others.find(({ thread, interval, time }) => thread !== serves && interval.activity === "recv" && time > (end - came) / 2);
      if (other) sentences.push(word("while-other", named(word, other.thread), other.interval.client));
      else if (serves.intervals.some(({ activity }) => activity === "poll")) sentences.push(word("wakes-for-any", named(word, serves)));
    }
    const rule = word(`rule-${model.scenario}-${own.outcome}`);
    const general = word(`rule-${own.outcome}`);
    if (rule || general) sentences.push(rule || general);
    return sentences;
  }

  return { options, why, lane };
})();
