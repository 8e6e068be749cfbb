/** Whether the floating-point numbers of a value are finite, looked at only where its schema has any. */
import avsc, { type Type } from 'avsc';

const { types } = avsc;

export type FiniteCheck = (value: unknown) => boolean;

/** @returns null where a value of the type holds no float or double */
export function finiteCheck(type: Type): FiniteCheck | null {
  if (type instanceof types.FloatType || type instanceof types.DoubleType) return Number.isFinite;
  if (type instanceof types.ArrayType) return every(finiteCheck(type.itemsType));
  if (type instanceof types.MapType) {
    const check = every(finiteCheck(type.valuesType));
    return check && ((value) => check(Object.values(value as Record<string, unknown>)));
  }
  if (type instanceof types.RecordType) {
    const fields = type.fields.flatMap((field) => {
      const check = finiteCheck(field.type);
      return check ? [{ name: field.name, check }] : [];
    });
    if (fields.length === 0) return null;
    return (value) => {
      for (let i = 0; i < fields.length; i++)
        if (!fields[i]!.check((value as Record<string, unknown>)[fields[i]!.name])) return false;
      return true;
    };
  }
  if (type instanceof types.UnwrappedUnionType || type instanceof types.WrappedUnionType) {
    const branches = type.types.filter((branch) => !(branch instanceof types.NullType));
    const checks = branches.map(finiteCheck);
    if (checks.every((check) => check === null)) return null;
    const [only] = checks;
    if (branches.length > 1 || type instanceof types.WrappedUnionType)
      throw new Error(`A union of several branches with floating-point numbers is not checked: ${type}`);
    return (value) => value === null || only!(value);
  }
  return null;
}

const every = (check: FiniteCheck | null): FiniteCheck | null =>
  check &&
  ((values) => {
    const list = values as ArrayLike<unknown>;
    for (let i = 0; i < list.length; i++) if (!check(list[i])) return false;
    return true;
  });
