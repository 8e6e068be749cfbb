/**
 * Where histories lie that memory has no room for. It is no more than a cache: a snapshot and the logs give again what it
 * holds, so nothing in it has to outlive the process.
 */
export interface ColdHistories {
  /** Who is asked which records are alive, and told where they move. Set before the first call. */
  owners: ColdOwners;
  /** Bytes that it takes on disk, dead ones included. */
  readonly sizeBytes: number;
  /** Keeps a record of an owner. @returns its position. @throws ColdHistoriesError where it cannot be written */
  put(owner: number, record: Uint8Array): number;
  /** The record that is there; valid until the next call. @throws ColdHistoriesError */
  read(position: number, sizeBytes: number): Uint8Array;
  /** Nobody asks for the record any more. */
  free(position: number, sizeBytes: number): void;
}

export interface ColdOwners {
  /** Of the owner's record, or -1. */
  positionOf(owner: number): number;
  moved(owner: number, position: number): void;
}

export class ColdHistoriesError extends Error {
  override name = 'ColdHistoriesError';
}
