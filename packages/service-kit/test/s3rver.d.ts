/** What the tests use of s3rver, which comes without types. */
declare module 's3rver' {
  export default class S3rver {
    constructor(options: { address: string; port: number; silent: boolean; directory: string });
    /** Resolves with the address that it listens on. */
    run(): Promise<unknown>;
    close(): Promise<void>;
  }
}
