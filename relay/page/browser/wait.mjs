// Deadline of everything that a test waits for, in milliseconds. It only bounds failures: nothing waits longer than
// its condition takes.
export const deadline = 60_000;

// until asks again until the answer is truthy, and returns it.
export async function until(what, ask) {
  const end = Date.now() + deadline;
  for (;;) {
    const answer = await ask();
    if (answer) return answer;
    if (Date.now() > end) throw new Error(`waited ${deadline / 1000} s for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}
