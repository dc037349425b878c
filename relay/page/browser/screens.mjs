// Every screen with an address that shows it: name, path, data-screen.
export async function screens(world) {
  const { relay } = world;
  const failed = await world.one('endpoint=crm&state=failed');
  const pending = await world.one('endpoint=warehouse&state=pending');
  const delivered = await world.one('endpoint=billing&state=delivered');
  const job = (await relay.api('GET', '/v1/jobs')).items[0] ?? (await relay.api('POST', '/v1/retries', { endpoint: 'warehouse', key: 'order-1' }));
  return [
    ['overview', '/', 'overview'],
    ['deliveries', '/deliveries', 'deliveries'],
    ['deliveries-filtered', '/deliveries?state=failed&endpoint=crm', 'deliveries'],
    ['deliveries-none', '/deliveries?event=evt_none', 'deliveries'],
    ['bulk', '/deliveries/bulk?action=redeliver&endpoint=crm&state=failed', 'bulk'],
    ['delivery-failed', `/deliveries/${failed.id}`, 'delivery'],
    ['delivery-pending', `/deliveries/${pending.id}`, 'delivery'],
    ['delivery-delivered', `/deliveries/${delivered.id}`, 'delivery'],
    ['discard', `/deliveries/${pending.id}/discard`, 'discard'],
    ['event', `/events/${failed.event.id}`, 'event'],
    ['event-unwanted', '/events/evt_unwanted', 'event'],
    ['event-erase', `/events/${failed.event.id}/erase`, 'erase'],
    ['endpoints', '/endpoints', 'endpoints'],
    ['endpoint-of-the-file', '/endpoints/billing', 'endpoint'],
    ['endpoint-made', '/endpoints/shop-of-acme', 'endpoint'],
    ['endpoint-disabled', '/endpoints/old', 'endpoint'],
    ['endpoint-test', '/endpoints/billing/test', 'test'],
    ['endpoint-new', '/endpoints/new', 'endpoint-form'],
    ['endpoint-edit', '/endpoints/shop-of-acme/edit', 'endpoint-form'],
    ['endpoint-secret', '/endpoints/shop-of-acme/secret', 'secret'],
    ['endpoint-delete', '/endpoints/shop-of-acme/delete', 'endpoint-delete'],
    ['types', '/types', 'types'],
    ['explain', '/explain', 'explain'],
    ['config', '/config', 'config'],
    ['jobs', '/jobs', 'jobs'],
    ['job', `/jobs/${job.id}`, 'job'],
    ['alerts', '/alerts', 'alerts'],
    ['audit', '/audit', 'audit'],
    ['links', '/links', 'links'],
    ['search', '/search?q=nothing', 'search'],
    ['not-found', '/nothing-here', 'error'],
  ];
}
