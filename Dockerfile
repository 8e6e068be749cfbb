# One image for every service: docker compose chooses what it runs with `command`.
FROM node:24.21.0-bookworm-slim
WORKDIR /app
ENV NODE_ENV=production
COPY .npmrc package.json package-lock.json ./
COPY packages packages
COPY services services
COPY apps apps
RUN npm ci --omit=dev --loglevel=error && npm cache clean --force
COPY schemas schemas
COPY queries queries
COPY config config
# /data keeps artifacts and local state; the user `node` owns it, so that named volumes do too.
RUN mkdir /data && chown node:node /data
USER node
VOLUME /data
CMD ["node", "--version"]
