export {
  ModelBinding,
  type ModelBindingOptions,
  type ModelChange,
  modelBinding,
} from './model-binding.ts'
export { bindSequelize, type SequelizeModel } from './sequelize.ts'
export { bindTypeorm, type TypeormEntity, type TypeormSource } from './typeorm.ts'
