import assert from 'node:assert/strict';
import { after, before } from 'node:test';
import { story } from './browser.mjs';

import { readerToken, World } from './world.mjs';

let world;
before(async () => { world = await World.begin(); });
after(() => world.end());

story('what a reader may not do is not offered, and data stays hidden', async (arrive) => {
  const v = await arrive(world.relay);
  const { page } = v;
  await v.login(readerToken);
  const { id } = await world.one('endpoint=crm');
  await v.open(`/deliveries/${id}`, 'delivery');
  for (const name of ['Send again', 'Try now', 'Discard']) assert.equal(await page.getByRole('button', { name }).count(), 0, name);
  const html = await page.content();
  assert.ok(!html.includes('is not known'), 'the answer of the receiver is shown');
  assert.ok(!html.includes('"customer"') && !html.includes('&#34;customer&#34;'), 'the data is shown');
  v.expect(403, '/deliveries/');
  const answer = await v.context.request.post(`/deliveries/${id}/redeliver`, { maxRedirects: 0, failOnStatusCode: false });
  assert.equal(answer.status(), 403);
});
