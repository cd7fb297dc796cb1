"use strict";
/* Derives from a recording the sentences that say what a client saw, and why. */
const reasons = (() => {
  const { millis, named, place } = drawLanes;
  /** The kinds of intervals that make another client wait. */
  const HOLDS = { send: "busy", work: "busy", recv: "recv", "waits-to-send": "waits-to-send" };

  const within = (interval, from, until) => Math.max(0, Math.min(interval.until, until) - Math.max(interval.from, from));
  const sum = (intervals, from = 0, until = Infinity) => intervals.reduce((time, interval) => time + within(interval, from, until), 0);
  const is = (...activities) => ({ activity }) => activities.includes(activity);
  const longest = intervals => intervals.reduce((a, b) => b.until - b.from > a.until - a.from ? b : a);

  /** Returns the time at which the outcome for a client was certain. */
  function decisive(lane) {
    const ends = { "rejected": "rejected", "closed": "ended", "reset": "reset", "refused": "refused" };
    const kind = ends[lane.outcome] ?? "answered";
    return (lane.events.find(event => event.kind === kind) ?? lane.events.at(-1)).at;
  }

  /** Returns the thread that serves a client. io_uring hides that from strace, but then there is only one thread. */
  function serving(model, client) {
    const first = test => model.threads.flatMap(thread => thread.intervals.filter(interval => test(interval)).map(({ from }) => ({ thread, from })))
      .sort((a, b) => a.from - b.from)[0]?.thread;
    return first(({ activity, client: of }) => activity === "send" && of === client) ?? first(({ client: of }) => of === client)
      ?? (model.threads.length === 1 ? model.threads[0] : undefined);
  }

  /** Returns the thread that accepted a client. */
  function accepting(model, client) {
    const since = thread => thread.intervals.find(({ client: of }) => of === client)?.from ?? Infinity;
    return model.threads.reduce((first, thread) => since(thread) < since(first) ? thread : first);
  }

  /** Returns whether a thread was started while clients were served, and serves this one only. */
  const isStartedFor = (thread, client) => thread.intervals[0].from > 0 && thread.intervals.every(({ client: of }) => !of || of === client);

  /**
   * Returns what makes a client wait, in the order of time. In the backlog it waits for the thread that accepts it, and
   * later for the thread that serves it: what these do for others is the reason.
   */
  function holders(model, own, came, end) {
    const serves = serving(model, own.client), accepts = accepting(model, own.client);
    const queued = own.intervals.filter(({ stay }) => stay === "connecting" || stay === "backlog").at(-1);
    const accepted = Math.min(queued?.until ?? came, end);
    const windows = serves === accepts ? [[serves, came, end]] : [[accepts, came, accepted], [serves, accepted, end]];
    const parts = new Map();
    for (const [thread, from, until] of windows) {
      for (const interval of thread?.intervals ?? []) {
        const time = within(interval, from, until), kind = HOLDS[interval.activity];
        if (!time || !kind || !interval.client || interval.client === own.client) continue;
        const key = [thread.thread, kind, interval.client].join();
        const part = parts.get(key) ?? { thread, kind, client: interval.client, time: 0, intervals: [] };
        part.time += time;
        part.intervals.push(interval);
        parts.set(key, part);
      }
    }
    const isOwn = ({ client, activity }) => client === own.client && HOLDS[activity] === "busy";
    const work = serves ? sum(serves.intervals.filter(isOwn), came, end) : 0;
    // A small share of the time explains nothing.
    const counts = time => time >= (end - came) / 20;
    const causes = [...parts.values()].filter(({ time }) => counts(time));
    const explained = causes.reduce((time, part) => time + part.time, work);
    return { causes: explained >= (end - came) / 2 ? causes : [], work: counts(work) ? work : 0 };
  }

  /** Returns the sentences that say what a client waits for. */
  function whyLate(word, model, own, came, end) {
    const connecting = sum(own.intervals.filter(({ stay }) => stay === "connecting"));
    if (connecting > (end - came) / 2) return [word("why-connecting")];
    const { causes, work } = holders(model, own, came, end);
    if (!causes.length) return model.scenario === "no-descriptors" ? [word("why-no-descriptors")] : [];
    const most = causes.reduce((a, b) => b.time > a.time ? b : a), interval = longest(most.intervals), source = model.sources[interval.source];
    const where = source ? [word("where", place(source))] : [];
    if (causes.length === 1 && !work) {
      const key = drawLanes.isAsleep(interval) ? "meanwhile" : "meanwhile-busy";
      return [word(key, millis(most.time), named(word, most.thread), drawLanes.describe(word, "thread", interval)), ...where];
    }
    const isOneThread = causes.every(({ thread }) => thread === causes[0].thread);
    const list = causes.map(({ thread, kind, client, time }, n) => {
      const before = causes[n - 1], isSame = before?.thread === thread;
      const isMore = isSame && kind === "busy" && before.kind === "busy";
      const part = word(isMore ? "part-busy-more" : `part-${kind}`, millis(time), client);
      if (isSame) return word("and") + part;
      return `${n ? word("and-thread") : ""}${named(word, thread)} ${isOneThread && causes.length > 1 ? word("at-first") : ""}${part}`;
    });
    return [word(work ? "of-these-own" : "of-these", millis(end - came), list.join(""), millis(work), own.client), ...where];
  }

  /** Returns the sentences that say why a client waits for no other. */
  function whyAtOnce(word, model, client, came, end) {
    const serves = serving(model, client);
    if (!serves) return [];
    const name = named(word, serves), sentences = [];
    const isAlone = isStartedFor(serves, client);
    if (isAlone) sentences.push(word(serves.name.includes(" of process ") ? "process-of-its-own" : "thread-of-its-own", name, client));
    else sentences.push(word("served-by", name, client));
    const meanwhile = (...activities) => model.threads.filter(thread => thread !== serves).flatMap(thread => thread.intervals
      .filter(interval => is(...activities)(interval) && interval.client && interval.client !== client && within(interval, came, end) > (end - came) / 2)
      .map(interval => ({ thread, interval })))[0];
    const sleeps = meanwhile("recv", "waits-to-send"), works = meanwhile("work");
    if (sleeps) sentences.push(word(`while-${sleeps.interval.activity}`, named(word, sleeps.thread), sleeps.interval.client));
    else if (works) sentences.push(word("while-works", named(word, works.thread), works.interval.client));
    if (!isAlone && !sleeps) sentences.push(...whyAwake(word, model, serves));
    return sentences;
  }

  /** Returns the sentences that say how a thread waits for all clients at the same time, if it does. */
  function whyAwake(word, model, serves) {
    // A thread in poll() waits for signals, or starts up.
    const polls = thread => thread.intervals.filter(({ activity, call }) => activity === "poll" && call !== "poll" && call !== "ppoll");
    const asleep = thread => sum(thread.intervals.filter(drawLanes.isAsleep));
    const share = thread => sum(polls(thread)) / Math.max(asleep(thread), 1);
    const others = model.threads.filter(thread => thread !== serves && thread.process === serves.process && share(thread) > SOME);
    // A thread that sleeps until another one wakes it takes part in the same executor.
    const isWoken = sum(serves.intervals.filter(is("thread"))) > SOME * asleep(serves);
    if (isWoken && others.length) {
      const isPolling = share(serves) > SOME, list = (threads, last) => {
        const names = threads.map(thread => named(word, thread));
        return [names.slice(0, -1).join(word("comma")), names.at(-1)].filter(Boolean).join(word(last));
      };
      if (isPolling) return [word("take-turns", list([serves, ...others], "and-name"))];
      const key = others.length > 1 ? "sleeps-until-one-wakes" : "sleeps-until-woken";
      return [word(key, named(word, serves), list(others, "or-name"))];
    }
    if (share(serves) <= SOME) return [];
    const { call } = longest(polls(serves));
    return [word("wakes-for-any", named(word, serves), call?.startsWith("io_uring") ? call : "epoll_wait")];
  }

  /** Returns the sentences that say why a client was disconnected at this time, and not before. */
  function whyClosed(word, model, own, end) {
    const [, timeout] = model.command.match(/--(?:idle|question)-timeout (\d+)ms/) ?? [];
    if (model.scenario !== "draining") {
      const sent = own.events.filter(({ kind }) => kind === "sent").map(({ at }) => at);
      const began = sent[0] ?? own.events.find(({ kind }) => kind === "connected")?.at ?? 0;
      if (!timeout || end - began < timeout * 1000 + MOMENT) return [];
      return [word(sent.some(at => at <= end && end - at < MOMENT) ? "late-byte" : "late-tick")];
    }
    if (end - model.drained < MOMENT) return [word("rule-draining-closed-now")];
    const sentences = [word("rule-draining-closed")];
    const last = thread => thread.intervals.findLast(({ client, from }) => client === own.client && from < end)?.from ?? -1;
    const holder = model.threads.reduce((latest, thread) => last(thread) > last(latest) ? thread : latest);
    const since = interval => within(interval, model.drained, end);
    const interval = holder.intervals.reduce((a, b) => since(b) > since(a) ? b : a), { activity, client } = interval;
    if (activity === "recv") sentences.push(word("drains-after-recv", named(word, holder), client));
    else if (client && client !== own.client && HOLDS[activity] === "busy") sentences.push(word("drains-after-answer", named(word, holder), client, millis(since(interval))));
    return sentences;
  }

  /** Returns the sentences that say what a client saw and why. */
  function why(word, model, client) {
    const own = questions.lane(model, client), { outcome } = own, came = own.intervals[0]?.from ?? 0, end = decisive(own), time = end - came;
    const isDrained = model.scenario === "draining" && outcome === "closed" && end >= model.drained;
    const hasWorked = outcome === "answered-at-once" && model.work > 0;
    const saw = isDrained ? "saw-draining-closed" : hasWorked ? "saw-answered-at-once-worked" : `saw-${outcome}`;
    const sentences = [word(saw, client, millis(isDrained ? end - model.drained : time), millis(model.work))];
    if (outcome === "answered-late" || outcome === "answered-then-closed" && time > model.work + LATE) sentences.push(...whyLate(word, model, own, came, end));
    if (outcome === "answered-at-once") sentences.push(...whyAtOnce(word, model, client, came, end));
    if (!isDrained) sentences.push(word(`rule-${model.scenario}-${outcome}`) || word(`rule-${outcome}`));
    if (outcome === "closed") sentences.push(...whyClosed(word, model, own, end));
    const isEveryone = model.clients.every(lane => lane.outcome === "rejected");
    if (model.scenario === "no-descriptors" && isEveryone) sentences.push(word("even-the-first"));
    return sentences.filter(Boolean).map(sentence => sentence.replace(/^(process|thread) \d/, name => name[0].toUpperCase() + name.slice(1)));
  }

  /** Microseconds within which a server notices something immediately, under strace. */
  const MOMENT = 20e3;
  /** As in lanes.rs: an answer is late if it takes longer than the work on it by this many microseconds. */
  const LATE = 40e3;
  /** The share of the time asleep that is worth a word. */
  const SOME = .1;
  return { why };
})();
