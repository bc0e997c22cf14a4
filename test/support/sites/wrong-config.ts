// biome-ignore lint/style/noDefaultExport: a config file has one.
export default { backend: 'memory:' }
