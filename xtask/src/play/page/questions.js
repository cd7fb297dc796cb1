"use strict";
/* Derives from a recording the question that is asked before the animation, and its possible answers. */
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

  /** Returns the sentence that says how many clients there can be, if the scenario is about that. */
  function limit(word, model) {
    if (model.scenario !== "too-many-clients") return "";
    const [, most] = model.command.match(/--max-connections (\d+)/) ?? [];
    if (most) return word("limit-clients", most);
    const { length } = model.threads, isProcesses = new Set(model.threads.map(({ process }) => process)).size > 1;
    return word(length === 1 ? "limit-one-thread" : isProcesses ? "limit-processes" : "limit-threads", length, model.seats);
  }

  return { options, lane, limit };
})();
