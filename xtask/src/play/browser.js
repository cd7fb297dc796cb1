/* Checks that the tests run in a page. overlaps() and foreign() return the faults as text; without a fault it is empty. */

/** Returns the visible text nodes. */
function shownTexts() {
  const isShown = element => element.checkVisibility({ visibilityProperty: true }) && !element.closest("script, style, template");
  const nodes = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const { currentNode } = walker;
    if (currentNode.textContent.trim() && isShown(currentNode.parentElement)) nodes.push(currentNode);
  }
  return nodes;
}

/** Returns the texts that overlap, or that extend beyond the window or their container. */
function overlaps() {
  // A sticky element covers what scrolls below it, and a scroll container clips its texts: neither is a fault.
  const isFloating = element => element && (getComputedStyle(element).position === "sticky" || isFloating(element.parentElement));
  const isPlaced = ({ parentElement }) => !parentElement.closest("select, .scroll") && !isFloating(parentElement);
  const page = { left: 0, right: innerWidth, top: -scrollY, bottom: Infinity };
  const pieces = shownTexts().filter(isPlaced).flatMap(node => {
    const range = document.createRange();
    range.selectNodeContents(node);
    const holder = node.parentElement.closest("button, svg, .card")?.getBoundingClientRect() ?? page;
    return [...range.getClientRects()].map(at => ({ node, at, holder }));
  });
  const complaints = [];
  pieces.forEach(({ node, at, holder }, n) => {
    const isInside = at.left > holder.left - 1 && at.right < holder.right + 1 && at.top > holder.top - 3 && at.bottom < holder.bottom + 3;
    if (!isInside) complaints.push(`outside: ${node.textContent}`);
    for (const { node: other, at: there } of pieces.slice(n + 1)) {
      const wide = Math.min(at.right, there.right) - Math.max(at.left, there.left), high = Math.min(at.bottom, there.bottom) - Math.max(at.top, there.top);
      // The box of a letter is higher than the letter.
      if (other !== node && wide > 2 && high > 5) complaints.push(`${node.textContent} lies on ${other.textContent}`);
    }
  });
  const { scrollWidth } = document.documentElement;
  if (scrollWidth > innerWidth) complaints.push(`wider than the window: ${scrollWidth}`);
  return complaints.slice(0, 5).join("; ");
}

/** Returns the words that are not in this language, visible or for screen readers. Names, quotations, code, calls and paths do not count. */
function foreign(language, names) {
  const texts = shownTexts().filter(({ parentElement }) => !parentElement.closest("code, .place")).map(node => node.textContent);
  document.querySelectorAll("[aria-label], [aria-valuetext]").forEach(element => texts.push(element.ariaLabel ?? "", element.ariaValueText ?? ""));
  document.querySelectorAll("option").forEach(option => texts.push(option.textContent));
  const ofNoLanguage = /“[^”]*”|"(\\.|[^"\\])*"|[\w-]+\(\)|[\w-]+(\/[\w.-]+)+/g;
  const other = language === "zh" ? /[A-Za-z][\w-]+/g : /[\u2e80-\uffef]+/g;
  const words = texts.flatMap(text => text.replace(ofNoLanguage, "").match(other) ?? []);
  return [...new Set(words)].filter(word => !names.includes(word)).join("; ");
}
