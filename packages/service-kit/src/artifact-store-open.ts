import { type ArtifactStore, FolderArtifactStore } from './artifact-store.ts';
import { S3ArtifactStore } from './artifact-store-s3.ts';
import { type CommonConfig, ConfigError } from './config.ts';

export type ArtifactStoreConfig = Pick<
  CommonConfig,
  'artifactsUri' | 's3Endpoint' | 's3Region' | 's3AccessKeyId' | 's3SecretAccessKey' | 's3SessionToken'
>;

/** A folder, or `s3://bucket/prefix`. @throws ConfigError naming what an s3 address lacks */
export function openArtifactStore(config: ArtifactStoreConfig): ArtifactStore {
  const { artifactsUri, s3Region: region, s3AccessKeyId, s3SecretAccessKey, s3SessionToken } = config;
  const scheme = /^([a-z][a-z0-9+.-]+):\/\//i.exec(artifactsUri)?.[1];
  if (scheme === undefined) return new FolderArtifactStore(artifactsUri);
  const match = /^s3:\/\/([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:\/(.*))?$/.exec(artifactsUri);
  if (!match)
    throw new ConfigError(
      `artifactsUri is ${artifactsUri}, expected a folder or s3://bucket/prefix with a bucket of 3 to 63 small letters, digits, dots and hyphens`,
    );
  if (!s3AccessKeyId || !s3SecretAccessKey)
    throw new ConfigError(
      `artifactsUri is ${artifactsUri}: set s3AccessKeyId and s3SecretAccessKey (ONEMALL_S3_ACCESS_KEY_ID, ONEMALL_S3_SECRET_ACCESS_KEY) too`,
    );
  return new S3ArtifactStore({
    bucket: match[1]!,
    prefix: (match[2] ?? '').replace(/^\/+|\/+$/g, ''),
    endpoint: config.s3Endpoint ?? `https://s3.${region}.amazonaws.com`,
    region,
    accessKeyId: s3AccessKeyId,
    secretAccessKey: s3SecretAccessKey,
    ...(s3SessionToken !== undefined && { sessionToken: s3SessionToken }),
  });
}
