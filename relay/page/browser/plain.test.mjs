// Without JavaScript everything works that is not live.
import assert from 'node:assert/strict';
import { after, before } from 'node:test';
import { story } from './browser.mjs';
import { until } from './wait.mjs';
import { World } from './world.mjs';

let world;
before(async () => { world = await World.begin(); });
after(() => world.end());

// rows of the list that is shown, as ids.
const rows = (page) => page.locator('tr[data-id]').evaluateAll((all) => all.map((r) => r.dataset.id));

// total asks the API for the number of deliveries.
const total = async (query) => (await world.relay.api('GET', `/v1/deliveries?${query}`)).total;

story('filters without JavaScript show what the API finds, and pages follow each other', async (arrive) => {
  const v = await arrive(world.relay, { js: false });
  const { page } = v;
  await v.login();
  await v.open('/deliveries', 'deliveries');
  await page.getByLabel('Type', { exact: true }).fill('order.*');
  await page.getByLabel('State', { exact: true }).selectOption('failed');
  await page.getByRole('button', { name: 'Find' }).click();
  await v.at('deliveries');
  assert.match(page.url(), /state=failed/);
  assert.deepEqual(await rows(page), (await world.relay.deliveries('type=order.*&state=failed')).map((d) => d.id));
  assert.equal(await page.getByLabel('Type', { exact: true }).inputValue(), 'order.*');

  await v.open('/deliveries?limit=10', 'deliveries');
  const seen = await rows(page);
  for (let next = page.getByRole('link', { name: 'Next page' }); await next.count(); ) {
    await next.click();
    await v.at('deliveries');
    seen.push(...(await rows(page)));
  }
  assert.equal(new Set(seen).size, seen.length, 'a delivery is shown twice');
  assert.equal(seen.length, await total(''));
});

story('a filter that cannot be is refused where it was typed', async (arrive) => {
  const v = await arrive(world.relay, { js: false });
  const { page } = v;
  await v.login();
  await v.open('/deliveries', 'deliveries');
  v.expect(400, '/deliveries');
  await page.getByLabel('Since', { exact: true }).fill('yesterday');
  await page.getByRole('button', { name: 'Find' }).click();
  await page.getByRole('alert').waitFor();
  assert.equal(await page.getByLabel('Since', { exact: true }).inputValue(), 'yesterday');
});

story('many are sent again after a count, and back, reload and a second click do not do it again', async (arrive) => {
  const v = await arrive(world.relay, { js: false });
  const { page } = v;
  await v.login();
  await v.open('/deliveries?endpoint=crm&state=failed', 'deliveries');
  const count = await total('endpoint=crm&state=failed');
  assert.ok(count > 3);
  world.receiver.answer('/crm', { status: 200 });
  await page.getByRole('link', { name: 'Send again' }).click();
  await page.getByText(`${count} deliveries`).first().waitFor();
  assert.equal((await world.relay.api('GET', '/v1/jobs')).items.length, 0, 'it acts before it asks');
  const asked = page.url();
  await page.getByRole('button', { name: 'Send again' }).dblclick();
  await v.left('/deliveries/bulk');
  await v.at('job');
  const done = () => until('the job', async () => (await world.relay.api('GET', '/v1/jobs')).items.every((j) => j.state === 'done'));
  await done();
  await page.reload();
  await page.getByText('done', { exact: true }).first().waitFor();
  assert.equal(await total('endpoint=crm&manual=true'), count);

  await page.goBack(); // to the question
  assert.equal(page.url(), asked);
  await page.goForward();
  await v.at('job');
  await done();
  assert.equal((await world.relay.api('GET', '/v1/jobs')).items.length, 1, 'the form acted twice');
  assert.equal(await total('endpoint=crm&manual=true'), count);
});

story('one is sent again, and back, reload and a double click do not send it twice', async (arrive) => {
  for (const js of [false, true]) {
    const v = await arrive(world.relay, { js });
    const { page } = v;
    await v.login();
    const { id } = await world.one(`endpoint=${js ? 'acme' : 'globex'}&state=delivered&manual=false`);
    await v.open(`/deliveries/${id}`, 'delivery');
    await page.getByRole('button', { name: 'Send again' }).dblclick();
    await v.left(`/deliveries/${id}`);
    await v.at('delivery');
    const made = page.url();
    await page.reload();
    await v.at('delivery');
    const sent = async () => (await world.relay.api('GET', `/v1/deliveries/${id}`)).redelivered_as;
    assert.equal((await sent()).length, 1, 'a double click acted twice');
    await page.goBack();
    await v.at('delivery');
    await page.goForward();
    await v.at('delivery');
    assert.equal(page.url(), made);
    assert.equal((await sent()).length, 1, 'back and forward acted');
  }
});

story('a delivery that waits is tried now, another is discarded', async (arrive) => {
  const v = await arrive(world.relay, { js: false });
  const { page } = v;
  await v.login();
  const [tried, dropped] = await world.relay.deliveries('endpoint=warehouse&state=pending');
  world.receiver.answer('/warehouse', { status: 200 });
  await v.open(`/deliveries/${tried.id}`, 'delivery');
  await page.getByRole('button', { name: 'Try now' }).click();
  await v.at('delivery');
  await until('the attempt', async () => (await world.relay.api('GET', `/v1/deliveries/${tried.id}`)).state === 'delivered');
  await v.open(`/deliveries/${dropped.id}`, 'delivery');
  await page.getByRole('link', { name: 'Discard' }).click();
  await v.at('discard');
  await page.getByRole('button', { name: 'Discard' }).click();
  await v.at('delivery');
  await page.locator('main').getByText('discarded', { exact: true }).first().waitFor();
  assert.equal((await world.relay.api('GET', `/v1/deliveries/${dropped.id}`)).state, 'discarded');
});
